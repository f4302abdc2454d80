"""sRGB and linear light (IEC 61966-2-1), for formats that store the other one."""

import numpy as np
from jaxtyping import Float, UInt8


def linear_from_srgb(srgb: UInt8[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Return linear light in [0, 1], float64, of 8-bit sRGB."""
    value = np.asarray(srgb, np.float64) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(linear: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """Return 8-bit sRGB of linear light; values outside [0, 1] are clipped. Inverse of `linear_from_srgb`."""
    value = np.clip(np.asarray(linear, np.float64), 0, 1)
    encoded = np.where(value <= 0.0031308, value * 12.92, 1.055 * value ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)
