"""The paints: colour as a function of place, so that seams of the unwrap cannot show.

Each paint takes the texels of one solid (place and normal, both local and world) and returns sRGB in [0, 1]. Local
frames are those of solids.py: courses go round z, planks run along x, doors and windows face -Y.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

Colours = Float[np.ndarray, "n 3"]
Values = Float[np.ndarray, " n"]

LATTICE = 64


@dataclass(frozen=True)
class Texels:
    """Places on the surface of one solid."""

    local: Float[np.ndarray, "n 3"]
    """Metres, in the solid's frame."""
    local_normal: Float[np.ndarray, "n 3"]
    """Unit length."""
    world: Float[np.ndarray, "n 3"]
    """Metres, before the object is moved off the origin."""
    world_normal: Float[np.ndarray, "n 3"]
    """Unit length."""
    shore_m: Values
    """Distance to the nearest line where something rises from the water, metres."""


def rgb(code: str) -> Float[np.ndarray, "3"]:
    """Return '#rrggbb' as sRGB in [0, 1]."""
    return np.array([int(code[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0


def step(edge0: float, edge1: float, x: Values) -> Values:
    """Return the smooth step from 0 at edge0 to 1 at edge1; edge0 may be the larger."""
    t = np.clip((x - edge0) / (edge1 - edge0), 0, 1)
    return t * t * (3 - 2 * t)


def mix(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*m 3"], share: Values) -> Colours:
    """Return a where share is 0 and b where it is 1."""
    return a + (b - a) * share[:, None]


class Noise:
    """Smooth value noise on a repeating random lattice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._lattice = rng.random((LATTICE, LATTICE, LATTICE), dtype=np.float32)

    def smooth(self, p: Float[np.ndarray, "n 3"]) -> Values:
        """Return noise in [0, 1] of one unit's grain."""
        cell = np.floor(p)
        t = p - cell
        at = (cell + t * t * (3 - 2 * t)) % LATTICE
        return map_coordinates(self._lattice, at.T, order=1, mode="grid-wrap").astype(np.float64)

    def layered(self, p: Float[np.ndarray, "n 3"], octaves: int = 4) -> Values:
        """Return a sum of octaves, again in [0, 1] with mean one half."""
        shares = 0.5 ** np.arange(octaves)
        layers = [s * self.smooth(p * 2.03**k + 17.3 * k) for k, s in enumerate(shares)]
        return np.sum(layers, axis=0) / shares.sum()

    def cell(self, i: Values, j: Values, salt: int = 0) -> Values:
        """Return a random value in [0, 1] for each integer cell."""
        a, b = i.astype(np.int64), j.astype(np.int64)
        return self._lattice[(a + 7 * salt) % LATTICE, (b * 3 + salt) % LATTICE, (a * 5 + b * 11) % LATTICE].astype(
            float
        )


@dataclass(frozen=True)
class Bricks:
    """Courses of bricks in running bond over a flat or rolled-out surface."""

    joint: Values
    """1 in the middle of a joint, 0 on a brick."""
    tone: Values
    """Random in [0, 1], one value a brick."""


def bricks(noise: Noise, u: Values, v: Values, width: float, height: float, joint: float) -> Bricks:
    """Lay bricks of width x height metres with joints ``joint`` metres wide."""
    row = np.floor(v / height)
    along = u / width + 0.5 * (row % 2)
    column = np.floor(along)
    to_side = np.minimum(along - column, 1 - (along - column)) * width
    to_bed = np.minimum(v / height - row, 1 - (v / height - row)) * height
    return Bricks(step(joint, 0.4 * joint, np.minimum(to_side, to_bed)), noise.cell(column % 48, row))


def rolled_out(t: Texels, courses_around: int) -> Values:
    """Return the way around local z in units such that a turn is ``courses_around``: no seam at the back."""
    return np.arctan2(t.local[:, 1], t.local[:, 0]) / (2 * np.pi) * courses_around


def flat_u(t: Texels) -> Values:
    """Return the horizontal coordinate of a wall that faces local x or y, metres."""
    sideways = np.abs(t.local_normal[:, 0]) > np.abs(t.local_normal[:, 1])
    return np.where(sideways, t.local[:, 1], t.local[:, 0])


Paint = Callable[[Texels, Noise], Colours]
