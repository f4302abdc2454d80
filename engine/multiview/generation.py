"""What a pipeline gives and what it says on the way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from engine.files.types import OrbitImages
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
    """Splats of the feed-forward reconstructor from the finished views; None without a reconstructor."""
    record: Mapping[str, Any]
    """What made it, for the report: prompt, seed, steps, guidance, steps of 3D-aware refinement, cameras."""


def silent(progress: GenerationProgress) -> None:
    """Say nothing."""


def background_colour(level: float) -> tuple[int, int, int]:
    """Return a grey level, 0 to 1, as an sRGB colour of bytes."""
    return (round(255 * level),) * 3


def as_bytes(images: Float[Tensor, "n 3 h w"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Return pictures in [-1, 1] as bytes; values outside are clipped."""
    levels = ((images.detach().float() + 1) * 127.5).clamp(0, 255).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).cpu().numpy()


def as_tensor(rgb: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
    """Return a picture of bytes in [-1, 1], channels first."""
    return torch.from_numpy(rgb).permute(2, 0, 1).float() / 127.5 - 1
