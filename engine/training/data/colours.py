"""Colours of an object varied, alike in all of its views: brightness, contrast, saturation and hue in one matrix."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

BRIGHTNESS, CONTRAST, SATURATION, HUE_DEG = 0.4, 0.4, 0.6, 90.0
"""How far each goes at strength 1, to both sides; factors are 1 + that. Chosen here: neither paper varies colours."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Rec. 601, on sRGB values."""
RGB_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
"""Y, I, Q of RGB: hue turns the plane of I and Q and leaves Y."""


@dataclass(frozen=True)
class Jitter:
    """What is done to colours, in this order."""

    brightness: float = 1.0
    """Factor."""
    contrast: float = 1.0
    """Factor on the distance from the object's mean grey."""
    saturation: float = 1.0
    """Factor on the distance from a pixel's own grey."""
    hue_deg: float = 0.0
    """Turn of the hue."""


def drawn_jitter(strength: float, generator: np.random.Generator) -> Jitter:
    """Draw a jitter, each part uniformly; strength 0 is none."""
    draws = strength * generator.uniform(-1, 1, 4)
    factors = 1 + draws[:3] * [BRIGHTNESS, CONTRAST, SATURATION]
    return Jitter(float(factors[0]), float(factors[1]), float(factors[2]), float(draws[3] * HUE_DEG))


def recoloured(rgba: UInt8[np.ndarray, "n h w 4"], jitter: Jitter) -> UInt8[np.ndarray, "n h w 4"]:
    """Return the views in other colours, alpha as it was. The same pixels come out whatever view is the first."""
    if jitter == Jitter():
        return rgba
    result = rgba.reshape(-1, 4).copy()
    seen = np.flatnonzero(result[:, 3])
    old = result[seen]
    channels, alpha = [old[:, c].astype(np.float32) for c in range(3)], old[:, 3].astype(np.int64)
    sums = [int((channel.astype(np.int64) * alpha).sum()) for channel in channels]  # exact, so in any order
    grey = float(LUMA @ np.array(sums)) / max(int(alpha.sum()), 1)
    matrix, offset = _matrix(jitter, grey)
    for row in range(3):
        value = np.full(len(alpha), offset[row] + 0.5, np.float32)
        for column in range(3):  # no matrix product: its rounding would depend on where a pixel lies
            value += np.float32(matrix[row, column]) * channels[column]
        old[:, row] = value.clip(0, 255)
    result[seen] = old
    return result.reshape(rgba.shape)


def _matrix(jitter: Jitter, grey: float) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """New = matrix @ old + offset, on 0 to 255; grey is the object's mean before."""
    angle = np.radians(jitter.hue_deg)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    hue = np.linalg.inv(RGB_YIQ) @ turn @ RGB_YIQ
    saturation = jitter.saturation * np.eye(3) + (1 - jitter.saturation) * np.outer(np.ones(3), LUMA)
    mean = jitter.brightness * grey
    both = hue @ saturation
    return jitter.contrast * jitter.brightness * both, both @ np.full(3, (1 - jitter.contrast) * mean)
