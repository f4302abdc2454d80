"""What a pipeline gives and what it says on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from engine.files.types import OrbitImages
from engine.geometry import Orbit
from engine.multiview.denoiser import OnStep, Step
from engine.multiview.foreground import alpha_from_background, grey_colour
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.pictures import Framed
from engine.multiview.settings import Hi3DSettings, VideoMVSettings
from engine.splats import Gaussians


@dataclass(frozen=True)
class GenerationProgress:
    """Where a generation stands."""

    stage: str
    """What is done now: encode, denoise, refine (Hi3D's second stage), decode."""
    done: int
    """Steps done."""
    steps: int
    """Steps in all."""
    preview: Callable[[], UInt8[np.ndarray, "n h w 3"]] | None = None
    """Decodes the views as they look now (costs a VAE pass); None where there is nothing to see."""


OnProgress = Callable[[GenerationProgress], None]
"""Called often; raises to cancel."""


@dataclass(frozen=True)
class Generation:
    """What a pipeline made."""

    images: OrbitImages
    """The orbit with its views: RGBA, the background taken away."""
    gaussians: Gaussians | None
    """Splats of the feed-forward reconstructor from the finished views; None without one, or if none of them shows."""
    record: Mapping[str, Any]
    """What made it, for the report: prompt, seed, steps, guidance, steps of 3D-aware refinement, cameras."""


def silent(progress: GenerationProgress) -> None:
    """Say nothing."""


def reporter(stage: str, codec: LatentCodec, on_progress: OnProgress) -> OnStep:
    """Return what a sampler calls after each step: it reports the stage, with a preview for those who want one."""

    def report(step: Step) -> None:
        def preview() -> UInt8[np.ndarray, "n h w 3"]:
            return as_bytes(codec.decode(step.x0[0]))

        on_progress(GenerationProgress(stage, step.index + 1, step.count, preview))

    return report


def generated(
    uid: str,
    orbit: Orbit,
    pictures: Float[Tensor, "n 3 h w"],
    settings: VideoMVSettings | Hi3DSettings,
    record: Mapping[str, Any],
    given: Framed | None = None,
) -> OrbitImages:
    """Return an orbit of views with the grey background taken away.

    Args:
        uid: its name.
        orbit: its cameras.
        pictures: as a network made them, in [-1, 1].
        settings: what the background is, how wide edges are, and whether the first view is replaced.
        record: what made them.
        given: the picture that the first view shows; replaces it where the settings say so, unless its own background
            is unknown (all of it is opaque).
    """
    rgba = alpha_from_background(as_bytes(pictures), grey_colour(settings.background), edge_px=settings.edge_px)
    kept = None
    if settings.keeps_picture and given is not None and not given.rgba[..., 3].all():
        rgba[0], kept = given.rgba, 0
    return OrbitImages(
        uid=uid, orbit=orbit, rgba=rgba, caption=record.get("prompt") or "", seed=record["seed"],
        renderer={"generator": dict(record)}, source="generated", given_view=kept,
    )  # fmt: skip


def as_bytes(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Return pictures in [-1, 1] as bytes; values outside are clipped."""
    levels = ((images.detach().float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def as_tensor(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Return a picture of bytes in [-1, 1], channels first."""
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 127.5 - 1
