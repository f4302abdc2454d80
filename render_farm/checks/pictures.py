"""What the colour pictures of one orbit show: how much of the object, how near the border, how bright."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

ALPHA_SEEN = 26
"""Of 255. A tenth: less is the soft foot of the pixel filter, or what Cycles' passes do not see either."""
ALPHA_OBJECT = 128
"""Of 255: half covered, so that the colour is the object's."""
WHITE, BLACK = 254, 1
"""All channels at or above, at or below: clipped, whatever the last bit rounds to."""
SAMPLED_PX = 64
"""Exposure is measured on every k-th pixel of larger pictures."""
LUMA = (0.2126, 0.7152, 0.0722)
EDGES = ("top", "bottom", "left", "right")


@dataclass(frozen=True)
class Coverage:
    """How much of each picture the object covers, and where it touches the border."""

    shares: Float[np.ndarray, " n"]
    """Mean alpha of each view, [0, 1]."""
    blank: Bool[np.ndarray, " n"]
    """Views that show nothing."""
    touches: Bool[np.ndarray, "n 4"]
    """Whether the object reaches the top, bottom, left and right edge of each view."""
    border_share: float
    """Share of all border pixels that show the object."""

    @property
    def cropped_views(self) -> list[int]:
        """Views that the object reaches out of."""
        return np.flatnonzero(self.touches.any(1)).tolist()


@dataclass(frozen=True)
class Exposure:
    """How bright the object is, over all views; 0 where there is no object."""

    white_share: float
    """Share of the object's pixels that are clipped to white."""
    black_share: float
    """Share that is clipped to black."""
    luminance: float
    """Mean of 0.2126 R + 0.7152 G + 0.0722 B of the stored sRGB values, [0, 1]."""


def measure_coverage(alpha: UInt8[np.ndarray, "n h w"]) -> Coverage:
    """Measure alpha alone."""
    seen = alpha >= ALPHA_SEEN
    edges = (seen[:, 0], seen[:, -1], seen[:, :, 0], seen[:, :, -1])
    touches = np.stack([edge.any(1) for edge in edges], 1)
    shares = alpha.mean((1, 2)) / 255
    count = sum(edge.size for edge in edges)
    return Coverage(shares, ~seen.any((1, 2)), touches, sum(int(edge.sum()) for edge in edges) / count)


def measure_exposure(rgba: UInt8[np.ndarray, "n h w 4"]) -> Exposure:
    """Measure colours where the object covers at least half of the pixel."""
    step = max(1, min(rgba.shape[1:3]) // SAMPLED_PX)
    small = rgba[:, ::step, ::step]
    pixels = small[small[..., 3] >= ALPHA_OBJECT][:, :3]  # [p, 3]
    if not len(pixels):
        return Exposure(0.0, 0.0, 0.0)
    white = np.minimum(np.minimum(pixels[:, 0], pixels[:, 1]), pixels[:, 2]) >= WHITE
    black = np.maximum(np.maximum(pixels[:, 0], pixels[:, 1]), pixels[:, 2]) <= BLACK
    luminance = pixels.mean(0) @ np.array(LUMA) / 255
    return Exposure(float(white.mean()), float(black.mean()), float(luminance))


def lost_views(coverage: Coverage, angles_deg: Float[np.ndarray, "n n"]) -> list[int]:
    """Return blank views that no object can explain.

    A flat sheet vanishes when seen from its edge. Seen from d degrees beside that, it covers at most sin d of what it
    covers at best; what covers more than twice that cannot vanish within d degrees: the picture was lost.
    """
    best = float(coverage.shares.max())
    limit = 2 * np.sin(np.radians(np.minimum(angles_deg, 90.0))) * best
    excess = (coverage.shares[None] > limit) & (angles_deg < 90)  # [blank view, its neighbour]
    return np.flatnonzero(coverage.blank & excess.any(1)).tolist()
