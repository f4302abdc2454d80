"""A name for how an object looks, equal or nearly so for copies of it: a perceptual hash of four of its views.

    views nearest to azimuth 0, 90, 180, 270 -> cut out square, on white -> luminance at 32 x 32
    -> cosine transform -> 63 low frequencies each -> 1 bit each: above their median?

pHash (Zauner 2010) of four sides: one side alone takes a plant for a wreck, since half the frequencies of a symmetrical
object are near 0. Copies must be seen from the same elevation: their bytes differ, so where elevations are drawn, only
some of them are found (28 % of 682 objects rendered twice); equal meshes are found by `mesh_hash` in any pose.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.fft import dctn

from engine.files import OrbitImages

SIDES_DEG = (0.0, 90.0, 180.0, 270.0)
SIDE_PX, LOW = 32, 8
"""Of the square, and of the corner of low frequencies that are kept."""
BITS = len(SIDES_DEG) * (LOW * LOW - 1)
NEAR_BITS = 48
"""Objects whose hashes differ in at most so many of 252 bits look alike. Of the 232,221 pairs of 682 different objects 4
are as near (a zebra and a horse, two rogues, two spaceships, a sundae and a torch), 19 at 60 bits. A noisy copy of half the size differs in 32 bits
(median), four of five copies in fewer than 48."""
DIGITS = -(-BITS // 4)
LUMA = (0.2126, 0.7152, 0.0722)
SOLID = 128
"""Alpha from which a pixel belongs to the object that is cut out."""


def picture_hash(images: OrbitImages) -> str:
    """Return 63 hexadecimal digits."""
    bits = [_side_bits(images.rgba[_nearest(images, azimuth_deg)]) for azimuth_deg in SIDES_DEG]
    number = int("".join("1" if bit else "0" for bit in np.concatenate(bits)), 2)
    return f"{number:0{DIGITS}x}"


def hash_distance(one: str, other: str) -> int:
    """Return the number of bits in which two hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def _nearest(images: OrbitImages, azimuth_deg: float) -> int:
    return int(np.argmin(np.abs((images.orbit.azimuth_deg - azimuth_deg + 180) % 360 - 180)))


def _side_bits(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, " n"]:
    weights = dctn(_canonical(rgba), norm="ortho")[:LOW, :LOW].ravel()[1:]
    return (weights > np.median(weights)).astype(np.uint8)


def _canonical(rgba: UInt8[np.ndarray, "h w 4"]) -> Float[np.ndarray, "s s"]:
    """Luminance on white of the square around the object: the same for any size, distance and background."""
    alpha = rgba[..., 3] / np.float32(255)
    grey = ((rgba[..., :3] @ np.array(LUMA, np.float32)) * alpha + 255 * (1 - alpha)).astype(np.float32)
    rows, columns = np.nonzero(rgba[..., 3] >= SOLID)
    if len(rows) == 0:
        return np.full((SIDE_PX, SIDE_PX), 255.0)
    low, high = np.array([rows.min(), columns.min()]), np.array([rows.max(), columns.max()]) + 1
    centre, half = (low + high) / 2, float((high - low).max()) / 2
    pad = int(np.ceil(half)) + 1  # the square may reach beyond the picture
    padded = np.pad(grey, pad, constant_values=255)
    top, left = centre - half + pad
    square = (left, top, left + 2 * half, top + 2 * half)
    small = Image.fromarray(padded).resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX, box=square)
    return np.asarray(small, np.float64)
