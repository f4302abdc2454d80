"""How near made pictures are to true ones: PSNR and SSIM of views over white, as the papers do it."""

import numpy as np
from jaxtyping import Float, UInt8
from skimage.metrics import structural_similarity

from engine.files import composite


def over_white(rgba: UInt8[np.ndarray, "*n h w 4"]) -> Float[np.ndarray, "*n h w 3"]:
    """Return sRGB pictures in 0 to 1 over white."""
    return composite(rgba, "white")


def psnr_db(made: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> float:
    """Return the peak signal-to-noise ratio in dB of pictures in 0 to 1; infinity if they are equal."""
    error = float(np.mean((np.clip(made, 0, 1).astype(np.float64) - truth) ** 2))
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(made: Float[np.ndarray, "h w 3"], truth: Float[np.ndarray, "h w 3"]) -> float:
    """Return the structural similarity (Wang et al. 2004): 11 px Gaussian window of 1.5 px, up to 1."""
    return float(
        structural_similarity(
            np.clip(made, 0, 1).astype(np.float64),
            truth.astype(np.float64),
            data_range=1.0,
            channel_axis=-1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )
