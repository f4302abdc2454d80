"""DDIM against what can be solved by hand, the release's loop as described, and diffusers' scheduler."""

from collections.abc import Callable

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from engine.multiview.ddim import ddim_timesteps, sample_ddim
from engine.multiview.denoiser import RefinementPlan, Step
from engine.multiview.guidance import GuidanceInterval, Guided, linear_scale
from engine.multiview.schedules import NoiseSchedule, cosine_zero_snr, draw_noise, linear_sd
from tests.engine.multiview.toy_networks import Knowing, OptimalOnSchedule, Wavy

SHAPE = (2, 6, 4, 5, 6)
NOISE, TOLD, OTHER = (draw_noise(SHAPE, seed) for seed in (1, 2, 3))
SCHEDULES = {"linear_sd": linear_sd(), "cosine_zero_snr": cosine_zero_snr()}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    """Each released schedule."""
    return SCHEDULES[request.param]


def guided(network: Wavy | None = None) -> Guided:
    return Guided(network or Wavy(), {"told": TOLD}, {"told": OTHER})


def test_the_released_timesteps():
    times = ddim_timesteps(1000, 50)
    assert times == list(range(981, 0, -20))
    assert [times[i] for i in (20, 30, 40)] == [581, 381, 181]


def test_a_leap_passes_over_the_middle():
    assert ddim_timesteps(1000, 1, "leap") == [999]
    assert ddim_timesteps(1000, 2, "leap") == [999, 399]
    assert ddim_timesteps(1000, 4, "leap") == [999, 399, 266, 132]
    assert ddim_timesteps(12, 4, "leap") == [11, 4, 2, 1]
    with pytest.raises(ValueError, match="steps must be from 1 to 5, got 6"):
        ddim_timesteps(12, 6, "leap")


def test_timesteps_of_other_counts_follow_the_stride():
    assert ddim_timesteps(1000, 4) == [751, 501, 251, 1]
    assert ddim_timesteps(1000, 1) == [1]
    assert ddim_timesteps(1000, 30)[:2] == [991, 958]  # stride 33 fits 31 times
    assert len(ddim_timesteps(1000, 30)) == 31
    assert ddim_timesteps(1000, 1000)[:3] == [999, 999, 998]  # the release clamps 1000
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"from 1 to 1000, got {steps}"):
            ddim_timesteps(1000, steps)


def test_a_network_that_knows_x0_ends_there(schedule: NoiseSchedule):
    """The noise of the start is kept throughout, so the end holds it at the share of time 0."""
    x0 = draw_noise((1, 6, 4, 5, 6), 5)
    last: list[Step] = []
    found = sample_ddim(Guided(Knowing(schedule, x0), {}), NOISE, schedule, on_step=last.append)
    signal, spread = schedule.alpha_bars.sqrt(), (1 - schedule.alpha_bars).sqrt()
    eps = (NOISE - signal[981].float() * x0) / spread[981].float()
    expected = signal[0].float() * x0 + spread[0].float() * eps
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)  # float32 over 50 steps
    torch.testing.assert_close(last[-1].x0, x0.expand(SHAPE), rtol=0, atol=2e-5)
    assert (found - x0).abs().max() > 1e-3  # the release does leave that noise in


def test_gaussian_data_is_reached_at_first_order(schedule: NoiseSchedule):
    """With the best denoiser of N(mean, s^2) the flow keeps z = (x - signal mean) / sqrt(signal^2 s^2 + spread^2)."""
    mean, deviation, noise = 0.7, 0.4, NOISE.double()
    signal, spread = schedule.alpha_bars.sqrt(), (1 - schedule.alpha_bars).sqrt()
    errors = []
    for steps in (50, 100, 200):
        found = sample_ddim(Guided(OptimalOnSchedule(schedule, mean, deviation), {}), noise, schedule, steps=steps)
        first = ddim_timesteps(1000, steps)[0]
        width = ((signal * deviation) ** 2 + spread**2).sqrt()
        exact = signal[0] * mean + width[0] * (noise - signal[first] * mean) / width[first]
        errors.append((found - exact).abs().max().item())
    assert errors[0] < 0.1  # of values of order 1
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]  # halved with the stride


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noisy_steps_draw_from_the_gaussian_too(eta: float):
    """With the best denoiser every step is linear, x <- slope x + offset + sigma n, which mean and variance follow."""
    schedule, goal, deviation = linear_sd(), 0.7, 0.4
    bars = schedule.alpha_bars.tolist()
    mean, variance = 0.0, 1.0
    for t in ddim_timesteps(1000, 50):
        bar, previous = bars[t], bars[max(t - 20, 0)]
        gain = bar**0.5 * deviation**2 / (bar * deviation**2 + 1 - bar)
        offset = goal * (1 - gain * bar**0.5)  # x0 = offset + gain x
        sigma = eta * ((1 - previous) / (1 - bar) * (1 - bar / previous)) ** 0.5  # equation 16
        back = ((1 - previous - sigma**2) / (1 - bar)) ** 0.5  # equation 12's direction, of x - sqrt(bar) x0
        slope = previous**0.5 * gain + back * (1 - bar**0.5 * gain)
        mean = slope * mean + (previous**0.5 - back * bar**0.5) * offset
        variance = slope**2 * variance + sigma**2
    noise, generator = draw_noise((1, 8, 4, 32, 32), 3).double(), torch.Generator().manual_seed(0)
    guided = Guided(OptimalOnSchedule(schedule, goal, deviation), {})
    found = sample_ddim(guided, noise, schedule, eta=eta, generator=generator)
    # 32,768 numbers: three standard errors are 0.007 of the mean and 0.005 of the deviation.
    assert found.mean().item() == pytest.approx(mean, abs=0.007)
    assert found.std().item() == pytest.approx(variance**0.5, abs=0.005)
    assert mean == pytest.approx(goal, abs=0.05)  # 50 steps come near the data
    assert variance**0.5 == pytest.approx(deviation, abs=0.1)


def as_released(
    network: Callable[..., Tensor],
    schedule: NoiseSchedule,
    steps: int,
    scale: float,
    refine: Callable[[Tensor], Tensor] | None = None,
    at: tuple[int, ...] = (),
) -> Tensor:
    """The release's loop, written from its description: two forwards, tables cast one by one, eps from x0."""
    bars = schedule.alpha_bars
    tables = {
        "reciprocal": (1 / bars).sqrt(),
        "reciprocal_less_1": (1 / bars - 1).sqrt(),
        "signal": bars.sqrt(),
        "spread": (1 - bars).sqrt(),
        "bar": bars,
    }
    x = NOISE
    for index, t in enumerate(range(1000 - 1000 // steps + 1, 0, -(1000 // steps))):
        now = {name: table[t].to(x) for name, table in tables.items()}
        outputs = []
        for condition in (TOLD, OTHER):
            out = network(x, torch.full((len(x),), float(t)), told=condition)
            if index in at and refine is not None:
                if schedule.prediction == "eps":
                    out = refine(now["reciprocal"] * x - now["reciprocal_less_1"] * out)
                else:
                    out = refine(now["signal"] * x - now["spread"] * out)
            outputs.append(out)
        out = outputs[1] + scale * (outputs[0] - outputs[1])
        if index in at:
            x0 = out
        elif schedule.prediction == "eps":
            x0 = now["reciprocal"] * x - now["reciprocal_less_1"] * out
        else:
            x0 = now["signal"] * x - now["spread"] * out
        eps = (now["reciprocal"] * x - x0) / now["reciprocal_less_1"]
        previous = bars[max(t - 1000 // steps, 0)].to(x)
        x = previous.sqrt() * x0 + (1 - previous).sqrt() * eps
    return x


@pytest.mark.parametrize(("name", "scale"), [("linear_sd", 9.0), ("cosine_zero_snr", 6.0)])
@pytest.mark.parametrize("steps", [50, 20])
def test_the_released_loop(name: str, scale: float, steps: int):
    schedule = SCHEDULES[name]
    expected = as_released(Wavy(), schedule, steps, scale)
    found = sample_ddim(guided(), NOISE, schedule, steps=steps, guidance_scale=scale)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())  # float32, two orders


@pytest.mark.parametrize(("name", "scale"), [("linear_sd", 9.0), ("cosine_zero_snr", 6.0)])
def test_the_released_loop_in_3d(name: str, scale: float):
    def refine(x0: Tensor) -> Tensor:
        return 0.5 * torch.tanh(x0.mean(dim=1, keepdim=True).expand_as(x0)) + 0.1 * x0.clamp(-1, 1)

    schedule = SCHEDULES[name]
    expected = as_released(Wavy(), schedule, 50, scale, refine, (20, 30, 40))
    plan = RefinementPlan(refine, (20, 30, 40))
    found = sample_ddim(guided(), NOISE, schedule, guidance_scale=scale, refinement=plan)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * expected.abs().max().item())  # float32, two orders
    plain = sample_ddim(guided(), NOISE, schedule, guidance_scale=scale)
    assert (found - plain).abs().max() > 0.01 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear_sd", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        (
            "cosine_zero_snr",
            {
                "beta_schedule": "squaredcos_cap_v2",
                "rescale_betas_zero_snr": True,
                "prediction_type": "v_prediction",
            },
        ),
    ],
)
def test_diffusers_takes_the_same_steps(name: str, settings: dict):
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading", **settings
    )
    scheduler.set_timesteps(50)
    network, x = Wavy(), NOISE
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.float().expand(len(x)), told=TOLD), t, x).prev_sample
    found = sample_ddim(Guided(Wavy(), {"told": TOLD}), NOISE, SCHEDULES[name])
    assert scheduler.timesteps.tolist() == ddim_timesteps(1000, 50)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-3 * x.abs().max().item())  # their table is float32


def test_diffusers_takes_the_same_trailing_steps():
    """From the last time on to clean latents (Lin et al. 2024), also where steps do not divide 1000."""
    for steps in (1, 4, 7, 30):
        scheduler = DDIMScheduler(timestep_spacing="trailing")
        scheduler.set_timesteps(steps)
        assert scheduler.timesteps.tolist() == ddim_timesteps(1000, steps, "trailing")
    settings = {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing", **settings)
    scheduler.set_timesteps(20)
    network, x = Wavy(), NOISE
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.float().expand(len(x)), told=TOLD), t, x).prev_sample
    seen: list[Step] = []
    found = sample_ddim(
        guided(), NOISE, SCHEDULES["cosine_zero_snr"], steps=20, spacing="trailing", guidance_scale=1.0,
        on_step=seen.append,
    )  # fmt: skip
    torch.testing.assert_close(found, x, rtol=0, atol=1e-3 * x.abs().max().item())  # their table is float32
    assert torch.equal(found, seen[-1].x0)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_diffusers_adds_the_same_noise(eta: float):
    """Their variance looks at t - 1000 // steps as ours does, so that eta agrees too, with the same generator."""
    scheduler = DDIMScheduler(
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading",
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012,
    )  # fmt: skip
    scheduler.set_timesteps(50)
    network, x, generator = Wavy(), NOISE, torch.Generator().manual_seed(4)
    for t in scheduler.timesteps:
        out = network(x, t.float().expand(len(x)), told=TOLD)
        x = scheduler.step(out, t, x, eta=eta, generator=generator).prev_sample
    again = torch.Generator().manual_seed(4)
    found = sample_ddim(Guided(Wavy(), {"told": TOLD}), NOISE, linear_sd(), eta=eta, generator=again)
    torch.testing.assert_close(found, x, rtol=0, atol=1e-3 * x.abs().max().item())  # their table is float32


def test_refinement_happens_at_its_steps():
    asked: list[int] = []
    seen: list[Step] = []

    def refine(x0: Tensor) -> Tensor:
        asked.append(len(seen))
        return torch.full_like(x0, 0.25)

    for branches, times in (("both", 2), ("conditional", 1)):
        asked.clear()
        seen.clear()
        plan = RefinementPlan(refine, (4, 6), branches)
        sample_ddim(guided(), NOISE, linear_sd(), steps=10, refinement=plan, on_step=seen.append)
        assert asked == [4] * times + [6] * times
        # Two equal x0 are guided to the same one.
        assert [bool((step.x0 == 0.25).all()) for step in seen] == [i in (4, 6) for i in range(10)]


def test_refining_the_conditional_branch_alone_asks_for_it_alone():
    network = Wavy()
    plan = RefinementPlan(lambda x0: x0, [2], "conditional")
    sample_ddim(guided(network), NOISE, linear_sd(), steps=4, refinement=plan)
    assert [len(latents) for latents, _, _ in network.calls] == [4, 4, 2, 4]


def test_unguided_steps_cost_one_branch():
    network = Wavy()
    sample_ddim(guided(network), NOISE, linear_sd(), steps=10, interval=GuidanceInterval(0.2, 0.5))
    assert [len(latents) for latents, _, _ in network.calls] == [2, 2, 4, 4, 4, 2, 2, 2, 2, 2]
    never = sample_ddim(guided(), NOISE, linear_sd(), steps=10, interval=GuidanceInterval(0.5, 0.5))
    assert torch.equal(never, sample_ddim(guided(), NOISE, linear_sd(), steps=10, guidance_scale=1.0))


def test_one_scale_for_each_view():
    """The network mixes neighbouring views, so one step: each view as if it had been guided so throughout."""
    scales = linear_scale(1.0, 9.0, 6)
    found = sample_ddim(guided(), NOISE, linear_sd(), steps=1, guidance_scale=scales)
    for view in range(6):
        alone = sample_ddim(guided(), NOISE, linear_sd(), steps=1, guidance_scale=scales[view].item())
        torch.testing.assert_close(found[:, view], alone[:, view], rtol=0, atol=1e-5)  # float32


def test_batches_do_not_mix():
    both = sample_ddim(guided(), NOISE, linear_sd(), steps=10)
    first = Guided(Wavy(), {"told": TOLD[:1]}, {"told": OTHER[:1]})
    torch.testing.assert_close(both[:1], sample_ddim(first, NOISE[:1], linear_sd(), steps=10))


def test_steps_are_reported_and_the_caller_may_stop():
    class Cancelled(Exception):
        pass

    seen: list[Step] = []

    def stop_at_third(step: Step) -> None:
        seen.append(step)
        if step.index == 2:
            raise Cancelled

    network = Wavy()
    with pytest.raises(Cancelled):
        sample_ddim(guided(network), NOISE, linear_sd(), steps=10, on_step=stop_at_third)
    assert [(step.index, step.count) for step in seen] == [(0, 10), (1, 10), (2, 10)]
    assert len(network.calls) == 3
    t = torch.tensor([701, 701])
    eps = linear_sd().eps(seen[1].latents, seen[2].x0, t)
    expected = linear_sd().add_noise(seen[2].x0, eps, t - 100)
    torch.testing.assert_close(seen[2].latents, expected)


def test_the_same_seed_gives_the_same_bytes():
    def run(seed: int) -> bytes:
        generator = torch.Generator().manual_seed(seed)
        noise = draw_noise(SHAPE, seed)
        found = sample_ddim(guided(), noise, linear_sd(), steps=10, eta=0.5, generator=generator)
        return found.numpy().tobytes()

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_half_precision_stays_near(schedule: NoiseSchedule, eta: float):
    """With noise too: 1 - alpha_bar of the last steps is 0 in bfloat16."""

    def walked(noise: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(4)
        return sample_ddim(guided(), noise, schedule, guidance_scale=2.0, eta=eta, generator=generator)

    found, expected = walked(NOISE.bfloat16()), walked(NOISE)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.2 * expected.norm()  # three digits, fifty steps


@pytest.mark.parametrize("short", [linear_sd(10), cosine_zero_snr(10)], ids=SCHEDULES)
def test_a_walk_through_pure_noise_is_finite(short: NoiseSchedule):
    """A stride of 2 visits the last time, where the cosine schedule holds no signal; the release divides by it."""
    one = draw_noise((1, 1, 4, 2, 2), 1)
    assert ddim_timesteps(10, 5)[0] == 9
    assert sample_ddim(Guided(Wavy(), {"told": one}), one, short, steps=5).isfinite().all()


def test_noise_needs_a_generator():
    for eta, generator in ((0.5, None), (-0.1, torch.Generator())):
        with pytest.raises(ValueError, match="or above with a generator"):
            sample_ddim(guided(), NOISE, linear_sd(), eta=eta, generator=generator)
