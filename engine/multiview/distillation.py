"""Multi-view score distillation (VideoMV section 5.2, DreamFusion): Gaussians that a multi-view prior finds likely.

    Gaussians --render all n views--> pictures --encode--> z --noise at t--> z_t --guided prior--> eps'
        ^                                                  |                                        |
        +-- Adam <---------- dz / dGaussians <--- w(t) (eps' - eps) <-------------------------------+

One score for all views at once, so that they agree on where the object's face is (no Janus).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import TurntableError
from engine.geometry import Camera
from engine.geometry.harmonics import SH_C0
from engine.multiview.aware import Codec, view_over_grey
from engine.multiview.guidance import Guided, Scale, combine
from engine.multiview.schedules import NoiseSchedule, normal_like
from engine.splats.gaussians import Gaussians
from engine.splats.growth import Growth, GrowthSettings
from engine.splats.parameters import LearningRates, TrainedGaussians
from engine.splats.rendering import Backend

Weighting = Literal["sigma2", "uniform", "x0"]
"""w(t) on the difference of the noises. sigma2: 1 - alpha_bar (DreamFusion section 3). uniform: 1. x0: spread / signal,
which makes the gradient z - x0, the difference to the picture that the prior sees (MVDream section 3.2)."""

FROM_A_HAZE = LearningRates(means=2e-3, log_scales=1e-2, quaternions=1e-2, opacity_logits=5e-2, sh=2e-2)
"""Larger than a fit's: nothing is in its place yet."""


@dataclass(frozen=True)
class DistillationSettings(GrowthSettings):
    """How a distillation runs; every step is one with all views."""

    guidance_scale: Scale = 50.0
    """Classifier-free guidance of the prior; distillation wants more than sampling (MVDream takes 50)."""
    weighting: Weighting = "sigma2"
    """Weight of a time's score."""
    times: tuple[float, float] = (0.02, 0.98)
    """Times are drawn uniformly from these shares of the schedule at the start."""
    last_times: tuple[float, float] = (0.02, 0.5)
    """And from these at the end, moving evenly: shape first, then detail."""
    background: float = 0.5
    """Grey level behind the Gaussians, sRGB; the one that the prior was trained on."""
    chunk: int | None = None
    """Views rendered and encoded with gradients at a time; None: all. Less saves memory and renders everything twice."""
    learning_rates: LearningRates = field(default_factory=lambda: FROM_A_HAZE)
    """Step sizes at the start."""
    backend: Backend = "auto"
    """Renderer; see engine.splats.render."""

    def __post_init__(self) -> None:
        """Refuse times that are no shares."""
        for name, (low, high) in (("times", self.times), ("last_times", self.last_times)):
            if not 0 <= low <= high <= 1:
                raise ValueError(f"{name} must be two rising shares from 0 to 1, got {low} and {high}")


@dataclass(frozen=True)
class DistillationProgress:
    """Where a distillation stands."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    time: int
    """The step's time on the prior's schedule."""
    score: float
    """Root mean square of z - x0: how far the views are from what the prior sees; comparable between like times."""
    gaussians: int
    """Gaussians at present."""


@dataclass(frozen=True)
class Score:
    """What a prior thinks of latents at one time."""

    gradient: Float[Tensor, "b n c h w"]
    """w(t) (eps' - eps): go against it."""
    x0: Float[Tensor, "b n c h w"]
    """The clean latents that the prior sees."""


@torch.no_grad()
def score_of(
    prior: Guided,
    schedule: NoiseSchedule,
    latents: Float[Tensor, "b n c h w"],
    time: int,
    noise: Float[Tensor, "b n c h w"],
    guidance_scale: Scale,
    weighting: Weighting = "sigma2",
) -> Score:
    """Return the score distillation gradient of clean latents (DreamFusion equation 3), for eps and v networks alike.

    Args:
        prior: network with its conditions, whose cameras are those of the views.
        schedule: the network's.
        latents: of all views.
        time: whole time on the schedule.
        noise: unit normal.
        guidance_scale: of the prior.
        weighting: w(t).

    Raises:
        TurntableError: the prior's prediction is not finite.
    """
    t = torch.full((len(latents),), time, device=latents.device)
    noisy = schedule.add_noise(latents, noise, t)
    x0 = schedule.x0(noisy, combine(prior(noisy, t.float()), guidance_scale), t)
    signal, spread = schedule.signal(t, latents), schedule.spread(t, latents)
    # eps' - eps = signal / spread * (z - x0'), since both noises explain the same noisy latents: no cancellation.
    weight = {"sigma2": signal * spread, "uniform": signal / spread, "x0": torch.ones_like(signal)}[weighting]
    if not torch.isfinite(x0).all():
        raise TurntableError(f"distillation: the prior's prediction at time {time} is not finite; run it in float32")
    return Score(weight * (latents - x0), x0)


def distill(
    start: Gaussians,
    prior: Guided,
    codec: Codec,
    schedule: NoiseSchedule,
    cameras: Sequence[Camera],
    settings: DistillationSettings | None = None,
    *,
    generator: torch.Generator,
    progress: Callable[[DistillationProgress], None] | None = None,
) -> Gaussians:
    """Optimise Gaussians until the prior finds their views likely; on the device of `start`.

    Args:
        start: Gaussians to begin with: `ball_of_gaussians`, or a reconstruction.
        prior: network with its conditions; for text and image networks alike.
        codec: the prior's; gets gradients through, none into its weights.
        schedule: the prior's.
        cameras: one a view, at the prior's picture size; the same that the prior's conditions name.
        settings: see DistillationSettings.
        generator: draws times and noise; on the CPU or the device of `start`.
        progress: called after every step; may raise to stop.

    Raises:
        ValueError: no cameras.
        TurntableError: the prior's prediction is not finite.
    """
    if not cameras:
        raise ValueError("cameras must hold at least one camera")
    settings = settings or DistillationSettings()
    trained = TrainedGaussians.of(start, settings.learning_rates)
    growth = Growth(trained, settings, np.random.default_rng(generator.initial_seed()))
    for step in range(settings.iterations):
        done = step / settings.iterations
        trained.decay(done)
        time = _draw_time(schedule, settings, done, generator)
        distance = _pull_towards_prior(trained, prior, codec, schedule, cameras, settings, time, generator)
        growth.step(step)
        if progress:
            progress(DistillationProgress(step + 1, settings.iterations, time, distance, len(trained)))
    return trained.gaussians.detach()


def _draw_time(schedule: NoiseSchedule, settings: DistillationSettings, done: float, generator: torch.Generator) -> int:
    (low, high), (last_low, last_high) = settings.times, settings.last_times
    low, high = low + done * (last_low - low), high + done * (last_high - high)
    share = low + (high - low) * torch.rand((), generator=generator, device=generator.device).item()
    return min(int(share * schedule.count), schedule.count - 1)


def _pull_towards_prior(
    trained: TrainedGaussians,
    prior: Guided,
    codec: Codec,
    schedule: NoiseSchedule,
    cameras: Sequence[Camera],
    settings: DistillationSettings,
    time: int,
    generator: torch.Generator,
) -> float:
    """Fill the Gaussians' gradients; return the root mean square of z - x0."""
    size = settings.chunk or len(cameras)
    chunks = [cameras[first : first + size] for first in range(0, len(cameras), size)]
    with torch.set_grad_enabled(len(chunks) == 1):
        latents = torch.cat([_latents(trained.gaussians, codec, chunk, settings) for chunk in chunks])[None]
    clean = latents.detach()
    score = score_of(
        prior, schedule, clean, time, normal_like(clean, generator), settings.guidance_scale, settings.weighting
    )
    if len(chunks) == 1:
        latents.backward(score.gradient, inputs=trained.leaves)
    else:  # the gradient is known before the graph: each chunk's can be dropped at once
        for chunk, gradient in zip(chunks, score.gradient[0].split(size), strict=True):
            _latents(trained.gaussians, codec, chunk, settings).backward(gradient, inputs=trained.leaves)
    return float((clean - score.x0).square().mean().sqrt())


def _latents(
    gaussians: Gaussians, codec: Codec, cameras: Sequence[Camera], settings: DistillationSettings
) -> Float[Tensor, "n c h w"]:
    pictures = [view_over_grey(gaussians, camera, settings.background, settings.backend) for camera in cameras]
    return codec.encode(2 * torch.stack(pictures).to(gaussians.means) - 1, None)


def ball_of_gaussians(count: int, generator: torch.Generator, *, radius_m: float = 0.4, grey: float = 0.5) -> Gaussians:
    """Return small round Gaussians spread evenly in a ball: what a distillation from words alone starts from.

    Args:
        count: how many.
        generator: places them; the Gaussians are on its device.
        radius_m: of the ball around the origin; the object's longest side is 1.
        grey: their colour, sRGB.
    """
    device = generator.device
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, device=device), dim=-1)
    reach = radius_m * torch.rand(count, 1, generator=generator, device=device) ** (1 / 3)
    spacing_m = radius_m * (4 * np.pi / 3 / count) ** (1 / 3)
    return Gaussians(
        directions * reach,
        torch.full((count, 3), float(np.log(0.5 * spacing_m)), device=device),
        torch.tensor([1.0, 0, 0, 0], device=device).repeat(count, 1),
        torch.full((count,), -2.0, device=device),  # 0.12: a haze through which gradients reach all of them
        torch.full((count, 1, 3), (grey - 0.5) / SH_C0, device=device),
    )
