"""Do an orbit's views show one object? Splats of half of them, looked at from the other half (VideoMV 4.1).

    views 0, 2, 4, ... --fit--> splats --render at cameras 1, 3, 5, ...--> PSNR, SSIM, LPIPS against views 1, 3, 5, ...

No truth is needed, so it holds for text as well. Blurred views agree easily: read it beside the figures against truth.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from engine.evaluation.images import over_white
from engine.evaluation.views import Perceptual, PictureFigures, picture_figures
from engine.files import OrbitImages
from engine.geometry import Camera
from engine.splats import Gaussians, render
from engine.splats.fitting import FitProgress, FitSettings, fit

CROSS_VIEW_FIT = FitSettings(iterations=300, max_gaussians=8000, hull_cells=48)
"""On true views of 128 px as good as 800 steps with 60,000 splats (32.6 and 32.1 dB against 32.5 and 32.6 on two
objects) in a fifth of the time. No view-dependent colour: that could explain away what differs between views."""


def cross_view(
    images: OrbitImages,
    settings: FitSettings = CROSS_VIEW_FIT,
    *,
    perceptual: Perceptual | None = None,
    device: str = "cpu",
    progress: Callable[[FitProgress], None] | None = None,
) -> PictureFigures:
    """Return how well splats of the even views predict the odd ones.

    Args:
        images: the orbit; depth is not used.
        settings: of the fit.
        perceptual: LPIPS, if it is wanted.
        device: where the fit runs.
        progress: called after every step.

    Raises OrbitError if the even views show nothing.
    """
    # A given picture among them weighs as much as the others: asked is what all of them show together.
    given = replace(images.subset(range(0, len(images.orbit), 2)), depth_m=None, given_view=None)
    asked = images.subset(range(1, len(images.orbit), 2))
    splats = fit(given, settings, device=device, progress=progress)
    return picture_figures(drawn(splats, asked.orbit.cameras), over_white(asked.rgba), perceptual)


def drawn(splats: Gaussians, cameras: list[Camera]) -> Float[np.ndarray, "n h w 3"]:
    """Return splats over white as cameras see them, sRGB in 0 to 1."""
    with torch.no_grad():
        pictures = render(splats, cameras).colour.numpy()
    return np.clip(pictures, 0, 1).astype(np.float64)
