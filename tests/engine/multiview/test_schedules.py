"""Schedules against their definitions, against diffusers', and their conversions against each other."""

import math

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from engine.multiview.schedules import NoiseSchedule, cosine_zero_snr, draw_noise, edm_sigmas, linear_sd

SCHEDULES = {"linear_sd": linear_sd(), "cosine_zero_snr": cosine_zero_snr()}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> NoiseSchedule:
    """Each released schedule."""
    return SCHEDULES[request.param]


def test_linear_sd_is_the_product_of_its_betas():
    alpha_bar, found = 1.0, linear_sd().alpha_bars
    for i in range(1000):
        beta = (math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * i / 999) ** 2
        alpha_bar *= 1 - beta
        assert found[i].item() == pytest.approx(alpha_bar, rel=1e-11)  # float64, a thousand factors
    assert alpha_bar == pytest.approx(0.00466, rel=1e-2)  # Stable Diffusion's well-known residual signal


def test_cosine_ends_in_pure_noise_and_keeps_its_first_value():
    found = cosine_zero_snr().alpha_bars
    assert found[-1].item() == 0.0
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in (0, 1)]
    assert found[0].item() == pytest.approx(f[1] / f[0], rel=1e-12)  # float64
    assert (found[1:] < found[:-1]).all()


def test_cosine_rescales_as_the_release_does_through_betas():
    """Shift and scale sqrt(alpha_bar), go back to betas and multiply up again."""
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    betas = np.minimum(1 - np.array(f[1:]) / np.array(f[:-1]), 0.999)
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * (root[0] / (root[0] - root[-1]))
    again = 1 - np.concatenate([root[:1] ** 2, root[1:] ** 2 / root[:-1] ** 2])
    # The way through betas loses digits where a beta is near 1: compared where the release samples, up to 981.
    np.testing.assert_allclose(cosine_zero_snr().alpha_bars[:982], np.cumprod(1 - again)[:982], rtol=1e-10)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("linear_sd", {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}),
        ("cosine_zero_snr", {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True}),
    ],
)
def test_alpha_bars_are_diffusers(name: str, settings: dict):
    theirs = DDIMScheduler(**settings).alphas_cumprod.double()
    # Theirs is a float32 product of a thousand factors near 1.
    torch.testing.assert_close(SCHEDULES[name].alpha_bars, theirs, rtol=0, atol=2e-5)


def test_conversions_undo_each_other(schedule: NoiseSchedule):
    t = torch.tensor([1, 500, 981])
    x0, eps = draw_noise((3, 2, 4, 5, 6), 1).double(), draw_noise((3, 2, 4, 5, 6), 2).double()
    noisy = schedule.add_noise(x0, eps, t)
    target = schedule.target(x0, eps, t)
    # Float64; eps divides by the signal, 0.02 at 981 of the cosine schedule.
    torch.testing.assert_close(schedule.x0(noisy, target, t), x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(schedule.eps(noisy, x0, t), eps, rtol=0, atol=1e-10)
    torch.testing.assert_close(schedule.prediction_of(noisy, x0, t), target, rtol=0, atol=1e-10)
    torch.testing.assert_close(noisy.var(dim=(1, 2, 3, 4)), torch.ones(3).double(), rtol=0, atol=0.3)  # 240 numbers


def test_v_still_tells_x0_where_nothing_is_left_of_it():
    schedule, t = cosine_zero_snr(), torch.tensor([999])
    x0, eps = draw_noise((1, 1, 4, 5, 6), 1), draw_noise((1, 1, 4, 5, 6), 2)
    assert torch.equal(schedule.x0(eps, schedule.target(x0, eps, t), t), x0)
    assert torch.equal(schedule.eps(eps, x0, t), eps)


def test_eps_on_a_schedule_without_terminal_signal_is_refused():
    with pytest.raises(ValueError, match="pass prediction='v'"):
        NoiseSchedule(cosine_zero_snr().alpha_bars, "eps")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_coefficients_take_the_latents_dtype(schedule: NoiseSchedule, dtype: torch.dtype):
    latents = torch.zeros(2, 1, 4, 2, 2, dtype=dtype)
    found = schedule.signal(torch.tensor([0, 400]), latents)
    assert found.dtype == dtype
    assert found.shape == (2, 1, 1, 1, 1)
    assert torch.equal(found[1].flatten(), schedule.alpha_bars[400:401].sqrt().to(dtype))


def test_edm_sigmas_are_the_published(oracles):
    assert np.array_equal(edm_sigmas().numpy(), np.load(oracles / "hi3d_stage1_small.npz")["sigmas"])


def test_edm_sigmas_fall_from_largest_to_smallest_to_nothing():
    sigmas = edm_sigmas(10, smallest=0.01, largest=80.0, rho=5.0).double()
    assert len(sigmas) == 11
    assert sigmas[[0, -2, -1]].tolist() == pytest.approx([80, 0.01, 0], rel=1e-5)  # float32 to a power
    roots = sigmas[:-1] ** (1 / 5)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(9), rtol=1e-4, atol=0)  # float32
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        edm_sigmas(0)


def test_a_seed_gives_the_same_bytes():
    shape = (1, 3, 4, 5, 6)
    assert draw_noise(shape, 7).numpy().tobytes() == draw_noise(shape, 7).numpy().tobytes()
    assert not torch.equal(draw_noise(shape, 7), draw_noise(shape, 8))
    assert torch.equal(draw_noise(shape, 7, dtype=torch.float16), draw_noise(shape, 7).half())


@pytest.mark.gpu
def test_a_seed_gives_the_same_noise_on_the_gpu():
    assert torch.equal(draw_noise((1, 3, 4, 5, 6), 7, "cuda").cpu(), draw_noise((1, 3, 4, 5, 6), 7))
