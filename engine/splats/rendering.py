"""One signature for three renderers: Gaussians and cameras in, pictures out.

    Gaussians --project--> 2D ellipses, colour, z, normal --sort, blend front to back--> Rendering

`gsplat` on CUDA, `numba` on a CPU, plain `torch` as the oracle that both are tested against. All three follow 3DGS
(Kerbl et al. 2023) with gsplat's constants, in limits.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from engine.errors import MissingDependencyError
from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.limits import ALPHA_MIN

Backend = Literal["auto", "gsplat", "numba", "torch"]


@dataclass(frozen=True)
class Rendering:
    """Pictures of Gaussians, one for each camera."""

    colour: Float[Tensor, "c h w 3"]
    """sRGB over the background, not clamped above 1."""
    alpha: Float[Tensor, "c h w"]
    """Share of the light that the splats stop, 0 to 1."""
    depth_m: Float[Tensor, "c h w"]
    """Mean planar z of what is seen, metres (weights normalised); 0 where alpha is below ALPHA_MIN."""
    normal: Float[Tensor, "c h w 3"]
    """Sum of weighted world-space normals (shortest axis, turned to the camera); as long as alpha or shorter."""


def compose(
    features: Float[Tensor, "c 7 h w"], alpha: Float[Tensor, "c h w"], background: Float[Tensor, "3"]
) -> Rendering:
    """Turn blended features (3 colour, 1 z, 3 normal) into a Rendering; all backends end here."""
    colour = features[:, :3] + (1 - alpha)[:, None] * background.view(1, 3, 1, 1)
    seen = alpha > ALPHA_MIN
    depth_m = torch.where(seen, features[:, 3] / alpha.clamp_min(ALPHA_MIN), 0.0)
    return Rendering(colour.permute(0, 2, 3, 1), alpha, depth_m, features[:, 4:7].permute(0, 2, 3, 1))


def default_backend(gaussians: Gaussians) -> Literal["gsplat", "numba"]:
    """Return gsplat for Gaussians on CUDA, numba for Gaussians on the CPU."""
    return "gsplat" if gaussians.means.is_cuda else "numba"


def render(
    gaussians: Gaussians,
    cameras: Sequence[Camera],
    background: Float[Tensor, "3"] | None = None,
    *,
    backend: Backend = "auto",
) -> Rendering:
    """Render Gaussians into cameras of one size; differentiable in all five parameters.

    Args:
        gaussians: on CUDA for gsplat, on the CPU for numba, anywhere for torch.
        cameras: at least one, all of the same width and height.
        background: sRGB, default white.
        backend: "auto" takes gsplat on CUDA and numba on the CPU.

    Raises:
        ValueError: no camera, or cameras of several sizes.
        MissingDependencyError: the backend cannot run where the Gaussians are.
    """
    if background is None:
        background = torch.ones(3)
    features, alpha = _rasterize(gaussians, cameras, backend, geometry=True)
    return compose(features, alpha, background.to(features))


def render_colour(
    gaussians: Gaussians, camera: Camera, *, backend: Backend = "auto"
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
    """Render one view's colour over black and its alpha, without depth and normals: what a fit's loop needs."""
    colour, alpha = render_colours(gaussians, [camera], backend=backend)
    return colour[0], alpha[0]


def render_colours(
    gaussians: Gaussians, cameras: Sequence[Camera], *, backend: Backend = "auto"
) -> tuple[Float[Tensor, "c 3 h w"], Float[Tensor, "c h w"]]:
    """Render several views of one size, likewise: what training a reconstructor needs."""
    return _rasterize(gaussians, cameras, backend, geometry=False)


def _rasterize(
    gaussians: Gaussians, cameras: Sequence[Camera], backend: Backend, *, geometry: bool
) -> tuple[Tensor, Tensor]:
    if not cameras:
        raise ValueError("cameras must hold at least one camera")
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) != 1:
        raise ValueError(f"cameras must share one size, got {sorted(sizes)}: render each size by itself")
    name = default_backend(gaussians) if backend == "auto" else backend
    if name == "gsplat":
        from engine.splats.rasterize_gsplat import rasterize
    elif name == "numba":
        if gaussians.means.is_cuda:
            raise MissingDependencyError("the numba renderer runs on the CPU: move the Gaussians with .to('cpu')")
        from engine.splats.rasterize_numba import rasterize
    else:
        from engine.splats.rasterize_torch import rasterize
    return rasterize(gaussians, cameras, geometry=geometry)
