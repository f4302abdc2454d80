"""Generated views against true ones, picture by picture over white: PSNR, SSIM, LPIPS (VideoMV 4.2, Hi3D 5.2)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from engine.evaluation.images import over_white, psnr_db, ssim

Perceptual = Callable[[Float[Tensor, "n 3 h w"], Float[Tensor, "n 3 h w"]], Float[Tensor, " n"]]
"""LPIPS: pictures in [-1, 1] in, a distance a pair out."""


@dataclass(frozen=True)
class PictureFigures:
    """Means over some views of one object."""

    psnr_db: float | None
    """Peak signal-to-noise ratio, dB: mean over views; None where a view equals the truth, which has none."""
    ssim: float
    """Structural similarity, up to 1."""
    lpips: float | None = None
    """Perceptual distance, 0 for equal pictures; None without its weights."""


@dataclass(frozen=True)
class ViewFigures:
    """Views of one object against the true ones, counted in two ways."""

    novel: PictureFigures
    """All views but the first, which is the picture that was given."""
    paper: PictureFigures
    """As the papers count: VideoMV's [0, 3, ..., 21] of 24, all 16 of Hi3D; the first one is among them."""


def paper_views(count: int) -> list[int]:
    """Return the views that the papers measure on: every third of 24 (VideoMV 4.2), all of any other number (Hi3D)."""
    return list(range(0, count, 3 if count == 24 else 1))


def measure_views(
    made: UInt8[np.ndarray, "n h w 4"], truth: UInt8[np.ndarray, "n h w 4"], perceptual: Perceptual | None = None
) -> ViewFigures:
    """Measure an object's views, straight alpha, of one size, in the same order; the first one is the given picture.

    Means are of the views' own figures, dB included, as in the papers.
    """
    each = [
        picture_figures(a[None], b[None], perceptual)
        for a, b in zip(over_white(made), over_white(truth), strict=True)
    ]  # fmt: skip
    return ViewFigures(_mean(each[1:]), _mean([each[view] for view in paper_views(len(each))]))


def picture_figures(
    made: Float[np.ndarray, "n h w 3"], truth: Float[np.ndarray, "n h w 3"], perceptual: Perceptual | None = None
) -> PictureFigures:
    """Measure pictures, sRGB in 0 to 1, and return the means."""
    psnr = float(np.mean([psnr_db(a, b) for a, b in zip(made, truth, strict=True)]))
    return PictureFigures(
        psnr_db=psnr if np.isfinite(psnr) else None,
        ssim=float(np.mean([ssim(a, b) for a, b in zip(made, truth, strict=True)])),
        lpips=float(perceptual(_tensor(made), _tensor(truth)).mean()) if perceptual else None,
    )


def _mean(each: list[PictureFigures]) -> PictureFigures:
    def over(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    return PictureFigures(
        over([one.psnr_db for one in each]),
        float(np.mean([one.ssim for one in each])),
        over([one.lpips for one in each]),
    )


def _tensor(pictures: Float[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    return torch.from_numpy(2 * np.clip(pictures, 0, 1) - 1).permute(0, 3, 1, 2).float()
