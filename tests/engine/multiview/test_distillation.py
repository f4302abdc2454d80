"""Score distillation: the gradient's closed form, and a prior that knows the object pulls Gaussians to it."""

import pytest
import torch

from engine.errors import TurntableError
from engine.geometry import RING24, Camera
from engine.multiview.aware import view_over_grey
from engine.multiview.distillation import (
    DistillationProgress,
    DistillationSettings,
    ball_of_gaussians,
    distill,
    score_of,
)
from engine.multiview.guidance import Guided
from engine.multiview.schedules import NoiseSchedule, cosine_zero_snr, linear_sd
from engine.splats.gaussians import Gaussians
from engine.splats.parameters import LearningRates
from tests.engine.multiview.stand_ins import KnowingNetwork, PixelCodec
from tests.engine.splats.reconstructor.stand_ins import blobs

SIZE, VIEWS = 32, 6
QUICK = LearningRates(means=5e-3, log_scales=2e-2, quaternions=1e-2, opacity_logits=0.1, sh=5e-2)
SCHEDULES = pytest.mark.parametrize("schedule", [linear_sd(), cosine_zero_snr()], ids=["text: eps", "image: v"])


def cameras() -> list[Camera]:
    return RING24.orbit(15.0, SIZE, SIZE).cameras[:: 24 // VIEWS]


def latents_of(gaussians: Gaussians, codec: PixelCodec) -> torch.Tensor:
    with torch.no_grad():
        pictures = torch.stack([view_over_grey(gaussians, camera, 0.5) for camera in cameras()])
        return codec.encode(2 * pictures - 1)[None]


def knowing(schedule: NoiseSchedule, target: torch.Tensor) -> Guided:
    network = KnowingNetwork(schedule, target, torch.zeros_like(target))
    return Guided(network, {"text": torch.ones(1)}, {"text": torch.zeros(1)})


def noise_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5))


@SCHEDULES
@pytest.mark.parametrize("time", [20, 500, 950])
def test_score_is_the_weighted_difference_of_the_noises(schedule, time):
    target, latents = noise_like(torch.zeros(1, 3, 2, 4, 4)), torch.ones(1, 3, 2, 4, 4)
    noise, t = noise_like(latents), torch.tensor([time])
    prior = knowing(schedule, target)
    noisy = schedule.add_noise(latents, noise, t)
    scale = 3.0
    believed = schedule.eps(noisy, scale * target, t)  # guidance between the target and nothing
    for weighting, weight in (("uniform", 1.0), ("sigma2", 1 - schedule.alpha_bars[time].float())):
        score = score_of(prior, schedule, latents, time, noise, scale, weighting)
        # Differences of noises lose digits that our closed form keeps; more at small times.
        torch.testing.assert_close(score.gradient, weight * (believed - noise), atol=1e-4, rtol=1e-3)
    score = score_of(prior, schedule, latents, time, noise, scale, "x0")
    torch.testing.assert_close(score.gradient, latents - scale * target, atol=1e-4, rtol=1e-3)


@SCHEDULES
def test_a_prior_that_knows_the_object_pulls_the_gaussians_to_it(schedule):
    codec, target = PixelCodec(), blobs(60, radius=0.35)
    wanted = latents_of(target, codec)
    prior = knowing(schedule, wanted)
    start = ball_of_gaussians(300, torch.Generator().manual_seed(1))
    steps: list[DistillationProgress] = []
    settings = DistillationSettings(iterations=60, guidance_scale=1.0, grow_every=25, learning_rates=QUICK)
    result = distill(
        start, prior, codec, schedule, cameras(), settings,
        generator=torch.Generator().manual_seed(0), progress=steps.append,
    )  # fmt: skip
    before = (latents_of(start, codec) - wanted).square().mean().sqrt()
    after = (latents_of(result, codec) - wanted).square().mean().sqrt()
    assert after < 0.5 * before
    assert steps[-1].score < 0.5 * steps[0].score
    assert steps[-1].score == pytest.approx(float(after), rel=0.2)  # of the step before the last
    assert not any(tensor.requires_grad for tensor in result.tensors)
    assert [step.step for step in steps] == list(range(1, 61))


def test_gradients_reach_the_gaussians_only():
    codec = PixelCodec()
    prior = knowing(linear_sd(), latents_of(blobs(60), codec))
    start = ball_of_gaussians(50, torch.Generator().manual_seed(1))
    kept = [tensor.clone() for tensor in start.tensors]
    settings = DistillationSettings(iterations=2, guidance_scale=2.0)
    result = distill(start, prior, codec, linear_sd(), cameras(), settings, generator=torch.Generator().manual_seed(0))
    assert codec.weight.grad is None
    assert all(parameter.grad is None for parameter in prior.network.parameters())
    for before, given, after in zip(kept, start.tensors, result.tensors, strict=True):
        torch.testing.assert_close(given, before, atol=0, rtol=0)  # the start itself stays
        assert (after - before).abs().max() > 0


def test_chunks_do_not_change_the_result():
    codec = PixelCodec()
    prior = knowing(linear_sd(), latents_of(blobs(60), codec))
    start = ball_of_gaussians(50, torch.Generator().manual_seed(1))
    means = []
    for chunk in (None, 1, 4):
        settings = DistillationSettings(iterations=3, chunk=chunk)
        generator = torch.Generator().manual_seed(0)
        means.append(distill(start, prior, codec, linear_sd(), cameras(), settings, generator=generator).means)
    # Gradients summed in another order; Adam's first steps divide them by their own size.
    torch.testing.assert_close(means[1], means[0], atol=2e-4, rtol=0)
    torch.testing.assert_close(means[2], means[0], atol=2e-4, rtol=0)


def test_the_same_seed_gives_the_same_gaussians():
    codec = PixelCodec()
    prior = knowing(linear_sd(), latents_of(blobs(60), codec))
    start = ball_of_gaussians(50, torch.Generator().manual_seed(1))

    def run(seed: int) -> torch.Tensor:
        settings = DistillationSettings(iterations=3)
        generator = torch.Generator().manual_seed(seed)
        return distill(start, prior, codec, linear_sd(), cameras(), settings, generator=generator).means

    torch.testing.assert_close(run(0), run(0), atol=0, rtol=0)
    assert (run(0) - run(1)).abs().max() > 0


def test_a_prediction_that_is_not_finite_stops_it():
    codec = PixelCodec()
    prior = knowing(linear_sd(), torch.full((1, VIEWS, 3, SIZE // 2, SIZE // 2), torch.nan))
    start = ball_of_gaussians(50, torch.Generator().manual_seed(1))
    with pytest.raises(TurntableError, match=r"prediction at time \d+ is not finite; run it in float32"):
        distill(start, prior, codec, linear_sd(), cameras(), generator=torch.Generator().manual_seed(0))


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match=r"times must be two rising shares from 0 to 1, got 0\.9 and 0\.1"):
        DistillationSettings(times=(0.9, 0.1))
    ball = ball_of_gaussians(5, torch.Generator())
    prior = knowing(linear_sd(), torch.zeros(1, 1, 3, 4, 4))
    with pytest.raises(ValueError, match="at least one camera"):
        distill(ball, prior, PixelCodec(), linear_sd(), [], generator=torch.Generator())
