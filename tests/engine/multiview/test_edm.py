"""The Euler sampler against what can be solved by hand, the release's loops as described, and diffusers' scheduler."""

import math
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from torch import Tensor

from engine.multiview.denoiser import RefinementPlan, Step
from engine.multiview.edm import LowResolutionInjection, sample_euler_edm, v_preconditioning
from engine.multiview.guidance import GuidanceInterval, Guided, linear_scale
from engine.multiview.schedules import draw_noise, edm_sigmas
from tests.engine.multiview.toy_networks import OptimalOnLevels, Wavy

SHAPE = (2, 6, 4, 5, 6)
NOISE, TOLD, OTHER, LOW = (draw_noise(SHAPE, seed) for seed in (1, 2, 3, 4))
SCALE = linear_scale(1.0, 2.5, 6)


def guided(network: Wavy | None = None) -> Guided:
    return Guided(network or Wavy(), {"told": TOLD}, {"told": OTHER})


def test_preconditioning_keeps_unit_variance():
    """Karras appendix B.6 with unit data variance: input, and the target that F is to predict, have variance 1."""
    sigma = torch.tensor([0.002, 0.7, 700.0], dtype=torch.float64)
    found = v_preconditioning(sigma)
    one = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(found.scale_in**2 * (1 + sigma**2), one)
    target_variance = ((1 - found.skip) ** 2 + (found.skip * sigma) ** 2) / found.out**2
    torch.testing.assert_close(target_variance, one)
    torch.testing.assert_close(found.noise, sigma.log() / 4)
    assert (found.out < 0).all()  # the sign of v


def test_a_network_that_knows_x0_ends_there():
    x0 = draw_noise((1, 6, 4, 5, 6), 5).double()
    found = sample_euler_edm(Guided(OptimalOnLevels(x0, 0.0), {}), NOISE.double(), edm_sigmas())
    # c_noise is float32: an error of 1e-6 of the first level, 700.
    torch.testing.assert_close(found, x0.expand(SHAPE), rtol=0, atol=1e-5)


def test_gaussian_data_is_reached_at_first_order():
    """With the best denoiser of N(mean, s^2) the flow keeps z = (x - mean) / sqrt(s^2 + sigma^2)."""
    mean, deviation, noise = 0.7, 0.4, NOISE.double()
    errors = []
    for steps in (25, 50, 100):
        found = sample_euler_edm(Guided(OptimalOnLevels(mean, deviation), {}), noise, edm_sigmas(steps))
        start = noise * math.sqrt(1 + 700**2)
        exact = mean + deviation * (start - mean) / math.sqrt(deviation**2 + 700**2)
        errors.append((found - exact).abs().max().item())
    assert errors[0] < 0.3  # at the outermost of 1440 numbers, four deviations out
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def as_released(injected: bool = False, steps: int = 25) -> Tensor:
    """The release's two loops, written from their description, frames by themselves."""
    sigmas = edm_sigmas(steps)
    x = NOISE * torch.sqrt(1 + sigmas[0] ** 2)
    network = Wavy()
    for i in range(steps):
        sigma = sigmas[i]
        if injected:
            alpha = math.pow(0.5 * (1 + math.cos(i * 1.0 / steps)), 40.0)
            x = x * (1 - alpha) + (NOISE * sigma + LOW) * alpha
        skip, out, scale = 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5, 1 / (sigma**2 + 1) ** 0.5
        denoised = [
            network(x * scale, (0.25 * sigma.log()).expand(2), told=told) * out + x * skip for told in (TOLD, OTHER)
        ]
        weight = torch.linspace(1.0, 2.5, 6).view(1, 6, 1, 1, 1)
        clean = denoised[1] + weight * (denoised[0] - denoised[1])
        x = x + (sigmas[i + 1] - sigma) * ((x - clean) / sigma)
    return x


@pytest.mark.parametrize("injected", [False, True])
@pytest.mark.parametrize("steps", [25, 10])
def test_the_released_loops(injected: bool, steps: int):
    injection = LowResolutionInjection(LOW) if injected else None
    found = sample_euler_edm(guided(), NOISE, edm_sigmas(steps), guidance_scale=SCALE, injection=injection)
    expected = as_released(injected, steps)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())  # float32, two orders


def test_injection_weights_are_the_released():
    """Cosine of i / 25 radians, not of a half turn: 1, 0.984, ... 7e-5."""
    weights = [LowResolutionInjection(LOW).weight(i, 25) for i in range(25)]
    assert weights[0] == 1.0
    assert weights[1] == pytest.approx(0.984, abs=5e-4)
    assert weights[24] == pytest.approx(7e-5, rel=0.1)
    assert all(later < earlier for earlier, later in pairwise(weights))
    # Another number of steps walks the same curve.
    assert LowResolutionInjection(LOW).weight(20, 50) == pytest.approx(weights[10])


def test_injection_starts_from_the_low_resolution_views_alone():
    seen: list[Tensor] = []

    def network(latents: Tensor, timestep: Tensor) -> Tensor:
        seen.append(latents)
        return torch.zeros_like(latents)

    sigmas = edm_sigmas()
    sample_euler_edm(Guided(network, {}), NOISE, sigmas, injection=LowResolutionInjection(LOW))
    torch.testing.assert_close(seen[0], (LOW + sigmas[0] * NOISE) / (1 + sigmas[0] ** 2).sqrt())


def test_diffusers_takes_the_same_steps():
    """The configuration that Stable Video Diffusion is shipped with."""
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, interpolation_type="linear",
        prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002, steps_offset=1,
        timestep_spacing="leading", timestep_type="continuous", use_karras_sigmas=True,
    )  # fmt: skip
    scheduler.set_timesteps(25)
    network, x = Wavy(), NOISE * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(network(scheduler.scale_model_input(x, t), t.expand(2), told=TOLD), t, x).prev_sample
    found = sample_euler_edm(Guided(Wavy(), {"told": TOLD}), NOISE, edm_sigmas())
    torch.testing.assert_close(found, x, rtol=0, atol=1e-3 * x.abs().max().item())  # float32 levels and times


def test_refinement_is_the_x0_of_its_steps():
    seen: list[Step] = []
    plan = RefinementPlan(lambda x0: torch.full_like(x0, 0.25), (4, 6))
    sample_euler_edm(guided(), NOISE, edm_sigmas(10), guidance_scale=SCALE, refinement=plan, on_step=seen.append)
    assert [bool((step.x0 == 0.25).all()) for step in seen] == [i in (4, 6) for i in range(10)]
    assert [step.index for step in seen] == list(range(10))


def test_refining_at_the_last_step_ends_in_it():
    plan = RefinementPlan(lambda x0: torch.full_like(x0, 0.25), [9], "conditional")
    found = sample_euler_edm(guided(), NOISE, edm_sigmas(10), guidance_scale=SCALE, refinement=plan)
    # At the last level, 0.002, the step goes all the way to x0.
    torch.testing.assert_close(found, torch.full(SHAPE, 0.25), rtol=0, atol=1e-6)


def test_unguided_steps_cost_one_branch():
    network = Wavy()
    interval = GuidanceInterval(0.2, 0.5)
    sample_euler_edm(guided(network), NOISE, edm_sigmas(10), guidance_scale=SCALE, interval=interval)
    assert [len(latents) for latents, _, _ in network.calls] == [2, 2, 4, 4, 4, 2, 2, 2, 2, 2]


def test_the_caller_may_stop():
    class Cancelled(Exception):
        pass

    def stop(step: Step) -> None:
        raise Cancelled

    network = Wavy()
    with pytest.raises(Cancelled):
        sample_euler_edm(guided(network), NOISE, edm_sigmas(), on_step=stop)
    assert len(network.calls) == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("injected", [False, True])
def test_half_precision_stays_near(dtype: torch.dtype, injected: bool):
    """Levels from 700 to 0.002 are in float16's range, and coefficients are computed in float32."""
    injection = LowResolutionInjection(LOW) if injected else None
    expected = sample_euler_edm(guided(), NOISE, edm_sigmas(), guidance_scale=SCALE, injection=injection)
    found = sample_euler_edm(guided(), NOISE.to(dtype), edm_sigmas(), guidance_scale=SCALE, injection=injection)
    assert found.dtype == dtype
    # bfloat16 has three digits, float16 a little more; rounding of high levels is forgotten on the way down.
    assert (found - expected).norm() < (0.005 if dtype == torch.float16 else 0.03) * expected.norm()


def test_the_start_is_left_as_it_was():
    """The release scales its noise in place; stage 2 needs it again at every step."""
    noise = NOISE.clone()
    sample_euler_edm(guided(), noise, edm_sigmas(3), injection=LowResolutionInjection(LOW))
    assert torch.equal(noise, NOISE)


@pytest.mark.parametrize("sigmas", [[0.0], [1.0, 2.0, 0.0], [1.0, -1.0], [1.0, 0.0, 0.0]])
def test_levels_that_do_not_fall_are_refused(sigmas: list[float]):
    with pytest.raises(ValueError, match="sigmas must fall to 0"):
        sample_euler_edm(guided(), NOISE, torch.tensor(sigmas))
