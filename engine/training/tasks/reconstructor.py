"""reconstructor: a few views to Gaussians, learned on what a generator makes (VideoMV section 3.3) or on true views (LGM).

    generated: x0 --noise at t <= 700--> frozen generator, one step --> x0' --VAE--> 4 random views --\\
    true:      4 random views --distorted, cameras but the first jittered--------------------------- > student
                                                                                                        |
    all views, alpha <--MSE, LPIPS late in the run-- renderings over the same background <-- Gaussians <-/
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from engine.checkpoints.layout import WeightsIndex, read_index
from engine.errors import TrainingError
from engine.evaluation.perceptual import Perceptual
from engine.geometry import Camera, Orbit
from engine.multiview.aware import evenly_spaced_views
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.settings import VideoMVSettings
from engine.multiview.weights import settings_of
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor import GaussianUNet, Reconstructor
from engine.splats.rendering import render_colours
from engine.training.latents import LatentCache
from engine.training.tasks.components import Start, index_of, videomv_components
from engine.training.tasks.distortions import grid_distorted, jittered
from engine.training.tasks.generated import OneStep
from engine.training.tasks.previews import at_rest, turntables
from engine.training.tasks.settings import ReconstructorTask
from engine.training.tasks.videomv import with_scaling_of
from engine.training.types import Batch, Draws, Losses


@dataclass(frozen=True)
class Given:
    """What the student is shown."""

    pictures: Float[Tensor, "b v 3 h w"]
    """sRGB, 0 to 1."""
    cameras: Sequence[Sequence[Camera]]
    """As told to it: jittered perhaps."""


@dataclass(frozen=True)
class Drawn:
    """Renderings of some views, and the truth, over the same background."""

    colour: Float[Tensor, "b v 3 h w"]
    """sRGB, 0 to 1, not clamped."""
    alpha: Float[Tensor, "b v h w"]
    """0 to 1."""
    true_colour: Float[Tensor, "b v 3 h w"]
    """sRGB, 0 to 1."""
    true_alpha: Float[Tensor, "b v h w"]
    """0 to 1."""

    @property
    def psnr_db(self) -> float:
        """Mean over the views."""
        error = (self.colour.clamp(0, 1) - self.true_colour).square().mean((2, 3, 4))
        return float((-10 * error.clamp_min(1e-10).log10()).mean())


class Reconstruction:
    """The task of the recipe `reconstructor`."""

    unused_parameters = False

    def __init__(
        self,
        network: GaussianUNet,
        plan: ReconstructorTask,
        generator: OneStep | None = None,
        perceptual: Perceptual | None = None,
    ) -> None:
        """Take the student, the frozen generator where views are its predictions, and LPIPS if it is to count."""
        if plan.source == "generated" and generator is None:
            raise TrainingError("the reconstructor learns on generated views, but was given no generator")
        self.plan, self.generator = plan, generator
        self.student: nn.Module = network.requires_grad_(True)
        frozen: dict[str, nn.Module] = {} if generator is None else dict(generator.networks)
        if perceptual is not None:
            frozen["perceptual"] = perceptual
        self.frozen: Mapping[str, nn.Module] = frozen
        self._network, self._reconstructor = network, Reconstructor(network)

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the squared errors of colours and alpha over the supervised views, and LPIPS late in the run."""
        orbits, draws = orbits_of(batch), Draws(batch.seeds, batch.pixels.device)
        order = draws.choice(len(orbits[0]), len(orbits[0])).tolist()
        views = [some[: self._network.config.views] for some in order]
        given = self._generated(batch, views, draws) if self.generator else self._true(batch, views, draws)
        backgrounds = draws.uniform(3) if self.plan.random_background else batch.backgrounds
        rendered = [some[: self.plan.supervised] for some in order]
        drawn = self._drawn(self._gaussians(student, given), batch, rendered, backgrounds)
        return self._losses(drawn, share)

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return the loss and PSNR of all views from evenly spaced ones, as a pipeline reconstructs.

        Of generated views those of half the largest time are taken.
        """
        with at_rest(student):
            drawn = self._at_inference(student, batch)
            losses = self._losses(drawn, 1.0)
        return {**{name: float(value) for name, value in losses.parts.items()}, "psnr_db": drawn.psnr_db}

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Render the clips' orbits; one film."""
        with at_rest(student):
            drawn = self._at_inference(student, batch)
        return {"turntable": turntables(2 * drawn.true_colour - 1, 2 * drawn.colour - 1)}

    def components(self) -> Mapping[str, Any]:
        """Return the reconstructor."""
        return {"reconstructor": self._network}

    def index(self) -> WeightsIndex:
        """Return what is written beside it."""
        return index_of("reconstructor", self.components(), {})

    def gaussians(
        self, student: nn.Module, pictures: Float[Tensor, "b v 3 h w"], cameras: Sequence[Sequence[Camera]]
    ) -> list[Gaussians]:
        """Return each object's Gaussians from pictures in 0 to 1; differentiable."""
        return self._gaussians(student, Given(pictures, cameras))

    def _gaussians(self, student: nn.Module, given: Given) -> list[Gaussians]:
        frames = self._reconstructor.frames(given.pictures, given.cameras)
        return self._reconstructor.gaussians(student(self._reconstructor.inputs(given.pictures, frames)), frames)

    def _generated(self, batch: Batch, views: list[list[int]], draws: Draws) -> Given:
        assert self.generator is not None
        times = (draws.uniform() * (self.plan.last_time + 1)).long()
        return Given(self.generator(batch, views, times, draws), cameras_of(orbits_of(batch), views))

    def _true(self, batch: Batch, views: list[list[int]], draws: Draws) -> Given:
        pictures = grid_distorted((chosen(batch.pixels, views) + 1) / 2, self.plan.distortion, draws)
        return Given(pictures, jittered(cameras_of(orbits_of(batch), views), self.plan.jitter, draws))

    def _at_inference(self, student: nn.Module, batch: Batch) -> Drawn:
        orbits, draws = orbits_of(batch), Draws(batch.seeds, batch.pixels.device)
        views = [evenly_spaced_views(len(orbits[0]), self._network.config.views)] * len(batch)
        if self.generator is not None:
            times = torch.full((len(batch),), self.plan.last_time // 2, device=batch.pixels.device)
            pictures = self.generator(batch, views, times, draws)
        else:
            pictures = (chosen(batch.pixels, views) + 1) / 2
        everything = [list(range(len(orbits[0])))] * len(batch)
        gaussians = self._gaussians(student, Given(pictures, cameras_of(orbits, views)))
        return self._drawn(gaussians, batch, everything, batch.backgrounds)

    def _drawn(
        self,
        gaussians: Sequence[Gaussians],
        batch: Batch,
        views: list[list[int]],
        backgrounds: Float[Tensor, "b 3"],
    ) -> Drawn:
        """Render views of every object, and put the truth over the same background at the same size."""
        side = self.plan.render_px or batch.pixels.shape[-1]
        cameras = cameras_of([orbit.resized(side, side) for orbit in orbits_of(batch)], views)
        pictures = [render_colours(some, them) for some, them in zip(gaussians, cameras, strict=True)]
        colour, alpha = (torch.stack(parts) for parts in zip(*pictures, strict=True))
        behind = backgrounds[:, None, :, None, None]
        true_alpha = chosen(batch.alpha, views)
        own = batch.backgrounds[:, None, :, None, None]
        true_colour = (chosen(batch.pixels, views) + 1) / 2 + (1 - true_alpha) * (behind - own)
        return Drawn(
            colour + (1 - alpha)[:, :, None] * behind, alpha, sized(true_colour, side), sized(true_alpha, side)[:, :, 0]
        )

    def _losses(self, drawn: Drawn, share: float) -> Losses:
        plan = self.plan
        parts = {
            "colour": functional.mse_loss(drawn.colour, drawn.true_colour),
            "alpha": functional.mse_loss(drawn.alpha, drawn.true_alpha),
        }
        total = parts["colour"] + plan.alpha_weight * parts["alpha"]
        if "perceptual" in self.frozen and share >= plan.perceptual_from:
            pairs = (sized(part, plan.perceptual_px).flatten(0, 1) for part in (drawn.colour, drawn.true_colour))
            made, truth = (2 * part - 1 for part in pairs)
            parts["perceptual"] = self.frozen["perceptual"](made, truth).mean()
            total = total + plan.perceptual_weight * parts["perceptual"]
        return Losses(total, {"loss": total.detach(), **{name: value.detach() for name, value in parts.items()}})


def orbits_of(batch: Batch) -> tuple[Orbit, ...]:
    """Return the clips' cameras. Raises TrainingError for 2D pictures."""
    if batch.orbits is None:
        raise TrainingError("the reconstructor learns from orbits, found 2D pictures without cameras: leave them out")
    return batch.orbits


def cameras_of(orbits: Sequence[Orbit], views: Sequence[Sequence[int]]) -> list[list[Camera]]:
    """Return the cameras of each clip's own views."""
    return [[orbit.camera(view) for view in some] for orbit, some in zip(orbits, views, strict=True)]


def chosen(pictures: Float[Tensor, "b n c h w"], views: Sequence[Sequence[int]]) -> Float[Tensor, "b v c h w"]:
    """Return each clip's own views."""
    return torch.stack([some[list(them)] for some, them in zip(pictures, views, strict=True)])


def sized(pictures: Float[Tensor, "b v c h w"], side: int) -> Float[Tensor, "b v c {side} {side}"]:
    """Return pictures at a side."""
    if pictures.shape[-2:] == (side, side):
        return pictures
    flat = functional.interpolate(pictures.flatten(0, 1), (side, side), mode="bilinear", antialias=True)
    return flat.unflatten(0, pictures.shape[:2])


def build(start: Start) -> Reconstruction:
    """Build the task; see `build.make_task`.

    Weights of VideoMV give the generator, and the reconstructor if they hold one; `parts={"reconstructor": ...}` starts
    it from LGM's.
    """
    plan = start.plan(ReconstructorTask)
    network = start.component("reconstructor", "GaussianUNet", lambda: GaussianUNet(**plan.network), plan.pretrained)
    generator = one_step(start, plan) if plan.source == "generated" else None
    return Reconstruction(network, plan, generator, start.lpips())


def one_step(start: Start, plan: ReconstructorTask) -> OneStep:
    """Return the generator: of the kind and with the settings that its weights say, else the recipe's."""
    if plan.generator is None:
        raise TrainingError(f"{start.recipe.name}: generated views need the generator's settings in the recipe")
    settings = plan.generator.settings
    folder = start.folder("unet")
    if folder is not None and read_index(folder).settings:
        found = settings_of(read_index(folder), folder)
        if not isinstance(found, VideoMVSettings):
            raise TrainingError(f"{folder}: holds weights of hi3d, the reconstructor learns on videomv's; pass those")
        settings = found
    settings = with_scaling_of(start, settings)
    components = videomv_components(start, settings, plan.generator.networks, plan.pretrained)
    latents = LatentCache(LatentCodec(components["vae"], settings.latent_scaling), start.cache)
    return OneStep(components, settings, latents, plan.guessed)
