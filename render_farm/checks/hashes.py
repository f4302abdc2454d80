"""A short name for how an object looks, equal or nearly so for copies of it: a perceptual hash of its front view.

    view nearest to azimuth 0 -> on white -> luminance at 32 x 32 -> cosine transform -> 64 low frequencies -> 1 bit each

As pHash (Zauner 2010), but a bit says whether its frequency is clearly positive, not whether it is above the median:
most objects are symmetrical, half of their frequencies are near 0, and their signs would be noise.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.fft import dctn

from engine.files import OrbitImages

BITS = 64
NEAR_BITS = 3
"""Pictures whose hashes differ in at most so many bits look alike. A noisy picture of half the size differs in 3 bits at
most (300 objects), and 20 of 44,850 pairs of those objects are as near (boxes, bars, bottles)."""
SIDE_PX = 32
CLEAR = 4.0
"""Of a frequency's weight, in grey levels of 255 times 32 (an orthonormal transform)."""
FREQUENCIES = sorted(((i, j) for i in range(12) for j in range(12) if i + j), key=lambda at: (sum(at), at[0]))[:BITS]
"""Rows and columns of the lowest 64, without the mean."""
LUMA = (0.2126, 0.7152, 0.0722)


def picture_hash(images: OrbitImages) -> str:
    """Return 16 hexadecimal digits for the view that stands nearest to the front (azimuth 0)."""
    front = int(np.argmin(np.abs((images.orbit.azimuth_deg + 180) % 360 - 180)))
    weights = dctn(_canonical(images.rgba[front]), norm="ortho")
    bits = np.array([weights[at] > CLEAR for at in FREQUENCIES])
    return np.packbits(bits).tobytes().hex()


def _canonical(rgba: UInt8[np.ndarray, "h w 4"]) -> Float[np.ndarray, "s s"]:
    """Luminance of the picture on white, averaged to SIDE_PX x SIDE_PX: the same for any size and any background."""
    alpha = rgba[..., 3] / np.float32(255)
    grey = (rgba[..., :3] @ np.array(LUMA, np.float32)) * alpha + 255 * (1 - alpha)
    small = Image.fromarray(grey.astype(np.float32)).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)
    return np.asarray(small, np.float64)


def hash_distance(one: str, other: str) -> int:
    """Return the number of bits in which two hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()
