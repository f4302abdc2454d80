"""3D-aware denoising (VideoMV section 3.4): predicted clean latents in, latents of views that one 3D object has out.

    x0 of n views --decode a few, evenly spaced--> pictures --reconstructor--> Gaussians
       x0' of n views <--encode, posterior sampled-- pictures <--render all n, nearest resize--

Samplers call it through `RefinementPlan`; `guidance.refinement_steps` says when.
"""

from collections.abc import Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.reconstructor import released_cameras
from engine.splats.rendering import Backend, render_colour

CameraRule = Literal["consistent", "released"]
"""consistent: the object's own cameras. released: turned backwards as in VideoMV's scripts, see `released_cameras`."""


@runtime_checkable
class Codec(Protocol):
    """Pictures to latents and back: `networks.latents.LatentCodec`."""

    def encode(
        self, images: Float[Tensor, "*b 3 H W"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "*b c h w"]:
        """Encode pictures in [-1, 1]; a generator samples the posterior, None takes its mode."""

    def decode(self, latents: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b 3 H W"]:
        """Decode to pictures, about [-1, 1]."""


@runtime_checkable
class ViewReconstructor(Protocol):
    """A few posed views to Gaussians: `engine.splats.reconstructor.Reconstructor`, or a fit."""

    @property
    def views(self) -> int:
        """How many views it wants."""

    @property
    def output_size(self) -> int:
        """Pixels a side at which its Gaussians look best."""

    def __call__(self, images: Float[Tensor, "v 3 h w"], cameras: Sequence[Camera]) -> Gaussians:
        """Reconstruct from sRGB pictures in [0, 1], in our world."""


def evenly_spaced_views(count: int, wanted: int) -> list[int]:
    """Return `wanted` view indices of `count`, the first being 0: 0, 6, 12, 18 of 24; all where there are fewer."""
    wanted = min(count, wanted)
    return [index * count // wanted for index in range(wanted)]


class GaussianRefinement:
    """Sends clean latents through 3D and back. Call it with x0 of all views; it draws noise, so calls differ."""

    def __init__(
        self,
        codec: Codec,
        reconstructor: ViewReconstructor,
        cameras: Sequence[Camera],
        *,
        background: float = 0.5,
        generator: torch.Generator | None = None,
        camera_rule: CameraRule = "consistent",
        views: Sequence[int] | None = None,
        backend: Backend = "auto",
        share: float = 1.0,
    ) -> None:
        """Keep what the loop through 3D needs.

        Args:
            codec: pictures to latents and back.
            reconstructor: views to Gaussians.
            cameras: of all n views, the same for all objects of a batch, square.
            background: grey level behind the Gaussians, sRGB, 0 to 1; the release takes 0.5 for text, 0.7 for images.
            generator: samples the posterior as the release does; None takes its mode.
            camera_rule: "released" repeats the release's turned cameras, for comparison only.
            views: indices of the views to reconstruct from; None: as many as the reconstructor wants, evenly spaced.
            backend: renderer; see engine.splats.render.
            share: of the rendered views' latents in what comes out, above 0 to 1; the rest are the denoiser's own. 1 is
                the release; less where the reconstructor is not much better than the denoiser: both err, in other places.

        Raises:
            ValueError: a background or a share outside its range, no cameras, or an unknown camera rule.
        """
        if not cameras or not 0 <= background <= 1:
            raise ValueError(f"needs cameras and a background from 0 to 1, got {len(cameras)} cameras and {background}")
        if not 0 < share <= 1:
            raise ValueError(f"share must be above 0, at most 1, got {share}")
        if camera_rule not in ("consistent", "released"):
            raise ValueError(f"camera_rule must be 'consistent' or 'released', got {camera_rule!r}")
        self.codec, self.reconstructor = codec, reconstructor
        self.background, self.generator, self.backend, self.share = background, generator, backend, share
        self.cameras = released_cameras(cameras) if camera_rule == "released" else list(cameras)
        self.views = list(views) if views is not None else evenly_spaced_views(len(cameras), reconstructor.views)

    @torch.no_grad()
    def __call__(self, x0: Float[Tensor, "b n c h w"]) -> Float[Tensor, "b n c h w"]:
        """Return latents of the same views, rendered from one set of Gaussians an object, or `share` of that; dtype and
        device of `x0`.

        Raises ValueError if there are not as many views as cameras.
        """
        if x0.shape[1] != len(self.cameras):
            raise ValueError(f"latents hold {x0.shape[1]} views, the refinement has {len(self.cameras)} cameras")
        refined = [self._encoded(*self._reconstructed(latents), like=latents) for latents in x0]
        return torch.stack(refined).lerp(x0, 1 - self.share)

    @torch.no_grad()
    def gaussians(self, x0: Float[Tensor, "n c h w"]) -> Gaussians:
        """Return what is reconstructed from one object's latents, for export."""
        return self._reconstructed(x0)[0]

    def _reconstructed(self, latents: Float[Tensor, "n c h w"]) -> tuple[Gaussians, tuple[int, int]]:
        """Gaussians, and height and width of the decoded pictures."""
        pictures = (0.5 + 0.5 * self.codec.decode(latents[self.views]).float()).clamp(0, 1)
        height, width = pictures.shape[-2:]
        cameras = [self.cameras[index].resized(width, height) for index in self.views]
        return self.reconstructor(pictures, cameras), (height, width)

    def _encoded(
        self, gaussians: Gaussians, size: tuple[int, int], like: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "n c h w"]:
        side = self.reconstructor.output_size
        drawn = [
            view_over_grey(gaussians, camera.resized(side, side), self.background, self.backend).clamp(0, 1)
            for camera in self.cameras
        ]
        pictures = functional.interpolate(torch.stack(drawn), size, mode="nearest")  # as the release, without smoothing
        return self.codec.encode(2 * pictures.to(like) - 1, self.generator).to(like)


def view_over_grey(
    gaussians: Gaussians, camera: Camera, grey: float, backend: Backend = "auto"
) -> Float[Tensor, "3 h w"]:
    """Render one view over a grey background, sRGB, not clamped; differentiable. The numba renderer gets CPU copies."""
    colour, alpha = render_colour(gaussians.to("cpu") if backend == "numba" else gaussians, camera, backend=backend)
    return colour + (1 - alpha) * grey
