"""The lopsided solid on VideoMV's ring."""

import pytest

from engine.files import OrbitImages
from engine.geometry import RING24
from tests.render_farm.checks.body import body_images


@pytest.fixture(scope="session")
def body() -> OrbitImages:
    """24 views at 128 px."""
    return body_images(RING24.orbit(20.0, 128, 128))


@pytest.fixture(scope="session")
def large_body() -> OrbitImages:
    """24 views at 256 px."""
    return body_images(RING24.orbit(20.0, 256, 256))
