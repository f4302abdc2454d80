"""A photograph's background taken away: an even one by its colour, any other by rembg (extra `matting`).

Pixels in, pixels with alpha out; `pictures.py` decides which of the two is used.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from engine.errors import MissingDependencyError
from engine.multiview.foreground import EDGE_PX, cut_out

log = logging.getLogger(__name__)

BORDER_SHARE = 0.75
"""How much of the border must fit an even background: an object may be cut by one side."""
BORDER_TOLERANCE = 14.0
"""Distance in RGB (0 to 441) from the fitted background that still fits."""
EDGE_SHARE = 1 / 250
"""Width of a photograph's edges as a share of the longest side."""
WEIGHTS_URL = "https://github.com/danielgatis/rembg/releases/download/v0.0.0/u2net.onnx"
WEIGHTS_NAME = "u2net.onnx"
INSTALL = "pip install -c constraints.txt -e '.[matting]'"


# ---------------------------------------------------------------- a background of one colour
def fit_background(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Float[np.ndarray, "h w 3"], float]:
    """Fit a smooth background (second order in x and y, for lights and vignettes) to the picture's border.

    Returns:
        The background at every pixel (float32, 0 to 255), and the share of the border that it fits.
    """
    height, width = rgb.shape[:2]
    strip = max(2, round(0.01 * max(height, width)))
    border = np.ones((height, width), bool)
    border[strip:-strip, strip:-strip] = False
    v, u = np.nonzero(border)
    thin = max(1, len(v) // 20_000)
    v, u = v[::thin], u[::thin]
    colours = rgb[v, u].astype(np.float64)
    weights, fits = _trimmed_fit(_terms(u / width, v / height), colours)
    columns, rows = np.arange(width) / width, np.arange(height) / height
    background = _terms(columns[None, :], rows[:, None]) @ weights
    return np.clip(background, 0, 255).astype(np.float32), float(fits.mean())


def _terms(x: Float[np.ndarray, "..."], y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "... 6"]:
    x, y = np.broadcast_arrays(x, y)
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], -1)


def _trimmed_fit(
    terms: Float[np.ndarray, "n 6"], colours: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "6 3"], Bool[np.ndarray, " n"]]:
    """Least squares over what lies near, starting from the commonest colour."""
    coarse = (colours // 16).astype(int) @ np.array([1, 16, 256])
    common = colours[coarse == np.bincount(coarse).argmax()].mean(0)
    fits = np.linalg.norm(colours - common, axis=-1) < 4 * BORDER_TOLERANCE
    weights = np.zeros((6, 3))
    weights[0] = common
    for _ in range(6):
        if fits.sum() < 32:
            break
        weights = np.linalg.lstsq(terms[fits], colours[fits], rcond=None)[0]
        fits = np.linalg.norm(colours - terms @ weights, axis=-1) < BORDER_TOLERANCE
    return weights, fits


def cut_by_colour(
    rgb: UInt8[np.ndarray, "h w 3"], background: Float[np.ndarray, "h w 3"]
) -> UInt8[np.ndarray, "h w 4"]:
    """Take away a background that `fit_background` found."""
    edge_px = max(EDGE_PX, EDGE_SHARE * max(rgb.shape[:2]))
    return cut_out(rgb.astype(np.float32), background, edge_px=edge_px)


# ---------------------------------------------------------------- anything else: rembg
def cut_by_rembg(rgb: UInt8[np.ndarray, "h w 3"], why: str) -> UInt8[np.ndarray, "h w 4"]:
    """Let rembg's u2net find the object.

    Args:
        rgb: sRGB.
        why: first clause of an error: which picture needs it and why.

    Raises:
        MissingDependencyError: rembg is not installed, or its weights are not here and cannot be fetched.
    """
    try:
        import rembg
    except (ImportError, SystemExit) as error:  # later versions leave the process where onnxruntime is missing
        raise MissingDependencyError(
            f"{why}, so rembg must find the object and is not installed; {INSTALL}, or use a picture with a transparent "
            "background"
        ) from error
    session = _session(rembg.new_session, why)
    mask = np.asarray(rembg.remove(Image.fromarray(rgb), session=session, only_mask=True).convert("L"))
    return _with_mask(rgb, mask)


def weights_path() -> Path:
    """Where rembg keeps its weights: U2NET_HOME, else XDG_DATA_HOME/.u2net, else ~/.u2net."""
    home = os.environ.get("U2NET_HOME") or str(Path(os.environ.get("XDG_DATA_HOME", "~")) / ".u2net")
    return Path(home).expanduser() / WEIGHTS_NAME


def _session(new_session: Callable[[str], Any], why: str) -> Any:
    """Start rembg; it fetches its weights (176 MB) when they are not there, and reports what went wrong in its ways."""
    path = weights_path()
    if not path.exists():
        log.info("rembg fetches its weights, 176 MB, to %s", path)
    try:
        return new_session("u2net")
    except (OSError, ValueError, RuntimeError) as error:  # no network (requests), a wrong checksum (pooch), onnxruntime
        reason = type(error).__name__
        raise MissingDependencyError(
            f"{why}, so rembg must find the object, but its weights {path} are missing or broken and could not be "
            f"fetched ({reason}); put {WEIGHTS_URL} there, or use a picture with a transparent background"
        ) from error


def _with_mask(rgb: UInt8[np.ndarray, "h w 3"], mask: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """Put a mask on, and at soft edges the colour of the sure inside nearby: the background there is not known."""
    sure = mask >= 240
    if not sure.any():
        return np.dstack([rgb, mask])
    rows, columns = ndimage.distance_transform_edt(~sure, return_distances=False, return_indices=True)
    own = rgb[rows, columns]
    own[mask == 0] = 0
    return np.dstack([own, mask])
