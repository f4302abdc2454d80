"""Tiny tasks, made once; tests do not train them."""

import pytest

from engine.training.recipes import recipe_named
from engine.training.tasks.build import make_task
from engine.training.tasks.diffusion import OrbitDiffusion
from engine.training.types import Batch
from tests.engine.training.procedural import batch_of, orbit_of


@pytest.fixture(scope="session")
def text_task() -> OrbitDiffusion:
    return make_task(recipe_named("videomv-text", "tiny"))


@pytest.fixture(scope="session")
def image_task() -> OrbitDiffusion:
    return make_task(recipe_named("videomv-image", "tiny"))


@pytest.fixture(scope="session")
def joint_task() -> OrbitDiffusion:
    return make_task(recipe_named("videomv-2d-joint", "tiny"))


@pytest.fixture(scope="session")
def clips() -> Batch:
    """Two clips of four views, the first of them at azimuth 90."""
    return batch_of(orbit=orbit_of(every=6, start=6))
