"""What the engine's tests share."""

import pytest

from engine.files import OrbitImages
from tests.engine.balls import ball_orbit


@pytest.fixture(scope="session")
def ball() -> OrbitImages:
    """Twelve views of the ball at 48 px, with depth and normals."""
    return ball_orbit()
