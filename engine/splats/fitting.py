"""Fit Gaussians to the views of an orbit: picture in, Gaussians out (3DGS section 5, shortened for objects).

start (depth or visual hull) --> [render a view over a random background, L1 + SSIM + alpha, Adam] x iterations
                                   every so often: prune the transparent, split and clone where the error pulls
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from engine.files.types import OrbitImages
from engine.splats.gaussians import Gaussians
from engine.splats.growth import Growth, GrowthSettings
from engine.splats.initialise import gaussians_on, surface_from_depth, surface_from_silhouettes
from engine.splats.losses import ssim
from engine.splats.parameters import LearningRates, TrainedGaussians
from engine.splats.rendering import Backend, render_colour

MARGIN_PX = 8
"""Colours are compared this far around the object: more than the reach of SSIM's window, 5 px."""


@dataclass(frozen=True)
class FitSettings(GrowthSettings):
    """How a fit runs. The defaults suit 256 px views of one object on a CPU."""

    iterations: int = 800
    """Optimiser steps, one view each."""
    sh_degree: int = 0
    """Degree of view-dependent colour, 0 to 3."""
    spacing_m: float = 0.008
    """Distance between the first Gaussians where depth is known, metres; the object's longest side is 1."""
    hull_cells: int = 96
    """Grid cells a side of the visual hull, the start where no depth is known."""
    ssim_weight: float = 0.2
    """Share of 1 - SSIM in the picture loss; the rest is L1 (3DGS equation 7)."""
    alpha_weight: float = 0.1
    """Weight of the L1 between rendered and true alpha."""
    given_view_weight: int = 6
    """How many times as often as the others a view is fitted, and how much more it colours the start, that is the given
    picture itself (OrbitImages.given_view)."""
    learning_rates: LearningRates = field(default_factory=LearningRates)
    """Step sizes at the start."""
    seed: int = 0
    """Order of the views and colours of the backgrounds."""


@dataclass(frozen=True)
class FitProgress:
    """Where a fit stands."""

    step: int
    """Steps done."""
    steps: int
    """Steps in all."""
    loss: float
    """Loss of the last step."""
    gaussians: int
    """Gaussians at present."""


def fit(
    images: OrbitImages,
    settings: FitSettings | None = None,
    *,
    start: Gaussians | None = None,
    backend: Backend = "auto",
    device: torch.device | str = "cpu",
    progress: Callable[[FitProgress], None] | None = None,
) -> Gaussians:
    """Fit Gaussians to all views of an orbit; the same seed gives the same Gaussians on one device.

    Args:
        images: the views to fit to; pass a subset to hold some out.
        settings: see FitSettings.
        start: Gaussians to start from instead of depth or hull.
        backend: renderer; see engine.splats.render.
        device: where to optimise.
        progress: called after every step; may raise to stop.

    Raises OrbitError if the views show nothing to start from.
    """
    settings = settings or FitSettings()
    generator = np.random.default_rng(settings.seed)
    trained = TrainedGaussians.of((start or first_guess(images, settings)).to(device), settings.learning_rates)
    truth = torch.from_numpy(images.rgba).to(device)
    windows = [object_window(view[..., 3]) for view in images.rgba]
    growth = Growth(trained, settings, generator)
    again = [] if images.given_view is None else [images.given_view] * (settings.given_view_weight - 1)
    order: list[int] = []
    for step in range(settings.iterations):
        order = order or generator.permutation([*range(len(truth)), *again]).tolist()
        view = order.pop()
        background = torch.from_numpy(generator.random(3).astype(np.float32)).to(device)
        trained.decay(step / settings.iterations)
        colour, alpha = render_colour(trained.gaussians, images.orbit.camera(view), backend=backend)
        loss = picture_loss(colour, alpha, truth[view], background, windows[view], settings)
        loss.backward()
        growth.step(step)
        if progress:
            progress(FitProgress(step + 1, settings.iterations, float(loss.detach()), len(trained)))
    return trained.gaussians.detach().to("cpu")


def first_guess(images: OrbitImages, settings: FitSettings) -> Gaussians:
    """Return Gaussians on the surface that depth shows, or on the visual hull where there is no depth."""
    if images.depth_m is not None:
        surface = surface_from_depth(images, settings.spacing_m)
    else:
        surface = surface_from_silhouettes(images, settings.hull_cells, settings.given_view_weight)
    return gaussians_on(surface.thinned(settings.max_gaussians, settings.seed), settings.sh_degree)


def object_window(alpha: UInt8[np.ndarray, "h w"]) -> tuple[slice, slice]:
    """Return rows and columns of a view that hold the object and a margin; everything if the view is empty."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if len(rows) == 0:
        return slice(None), slice(None)

    def widened(found: Int[np.ndarray, " n"]) -> slice:
        return slice(max(0, int(found[0]) - MARGIN_PX), int(found[-1]) + 1 + MARGIN_PX)

    return widened(rows), widened(columns)


def picture_loss(
    colour: Float[Tensor, "3 h w"],
    alpha: Float[Tensor, "h w"],
    truth: UInt8[Tensor, "h w 4"],
    background: Float[Tensor, "3"],
    window: tuple[slice, slice],
    settings: FitSettings,
) -> Float[Tensor, ""]:
    """Return the loss of a view over a background, which keeps colour and alpha from trading with each other.

    Colours are compared within the window only, which halves the time of the loss; alpha everywhere, so that nothing
    grows outside. The means are over the whole view either way.

    Args:
        colour: rendered over black.
        alpha: rendered.
        truth: straight alpha.
        background: sRGB.
        window: rows and columns that hold the object, from `object_window`.
        settings: weights.
    """
    true_alpha = truth[..., 3].to(colour) / 255
    outside = settings.alpha_weight * (alpha - true_alpha).abs().mean()
    rows, columns = window
    colour, alpha, true_alpha = colour[:, rows, columns], alpha[rows, columns], true_alpha[rows, columns]
    true_colour = truth[rows, columns, :3].permute(2, 0, 1).to(colour) / 255
    behind = background.view(3, 1, 1)
    seen = colour + (1 - alpha) * behind
    wanted = true_colour * true_alpha + (1 - true_alpha) * behind
    difference = (seen - wanted).abs().mean()
    structure = 1 - ssim(seen, wanted)
    share = alpha.numel() / truth[..., 3].numel()
    return share * ((1 - settings.ssim_weight) * difference + settings.ssim_weight * structure) + outside
