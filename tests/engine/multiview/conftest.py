"""What tests of the generators share."""

import numpy as np
import pytest

from engine.multiview.pictures import Picture


@pytest.fixture(scope="session")
def picture_of_ball() -> Picture:
    """A coloured disc, transparent around it."""
    v, u = np.mgrid[:64, :64]
    alpha = 255 * ((u - 32) ** 2 + (v - 32) ** 2 < 400)
    return Picture(np.dstack([4 * u, 4 * v, 0 * u + 90, alpha]).astype(np.uint8))
