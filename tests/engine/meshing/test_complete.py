"""What no camera saw: harmonic between seen matter and seen emptiness, clipped where the box must end."""

from dataclasses import replace

import numpy as np

from engine.meshing.carve import Volume
from engine.meshing.complete import FREE, OUTSIDE, SOLID, UNKNOWN, complete, ground_and_ceiling_m, harmonic
from engine.meshing.settings import MeshSettings


def test_between_two_plates_the_harmonic_function_is_linear() -> None:
    labels = np.full((12, 12, 34), UNKNOWN, np.uint8)
    labels[:2], labels[-2:], labels[:, :2], labels[:, -2:] = OUTSIDE, OUTSIDE, OUTSIDE, OUTSIDE
    labels[:, :, 0], labels[:, :, -1] = SOLID, FREE
    values = harmonic(labels)
    # the coarsest level sees a plate up to two of the 33 cells off, and the finer ones smooth rather than move it
    np.testing.assert_allclose(values[6, 6], np.linspace(-1, 1, 34), atol=0.1)


def volume(low: float, high: float) -> Volume:
    shape = (8, 8, 8)
    return Volume(np.zeros(3), 0.1, np.zeros(shape, np.float32), np.zeros(shape, np.uint8), low, high)


def test_the_ground_mirrors_the_top_only_where_that_makes_room() -> None:
    assert ground_and_ceiling_m(volume(-0.3, 0.5), centred=True) == (-0.5, 0.5)  # the bottom hangs lower, hidden
    assert ground_and_ceiling_m(volume(-0.5, 0.3), centred=True) == (-0.5, 0.5)  # the top, seen from below
    assert ground_and_ceiling_m(volume(-0.3, 0.5), centred=False) == (-0.3, 0.5)


def test_a_cavity_is_filled_or_opened_as_the_level_says() -> None:
    """A pit: seen walls, an unknown inside, seen emptiness above."""
    distance = np.full((21, 21, 21), -0.3, np.float32)
    distance[:, :, 18:] = 0.3
    seen = np.zeros(distance.shape, np.uint8)
    seen[:3], seen[-3:], seen[:, :3], seen[:, -3:], seen[:, :, :3] = 3, 3, 3, 3, 3
    pit = Volume(
        np.array([-1.0, -1.0, -1.0]), 0.1, distance, seen, -1.01, 1.01
    )  # a hair of room for rounding at the ends
    settings = MeshSettings(truncation_voxels=3.0)
    solid = {fill: int((complete(pit, replace(settings, fill=fill)) < 0).sum()) for fill in (0.1, 0.5, 1.0)}
    assert solid[0.1] < solid[0.5] < solid[1.0]
    assert solid[1.0] == int((distance <= 0).sum())
