"""What every room's tests share: the random generator, where the repository and its neighbour `shared` lie, CUDA."""

import os
from pathlib import Path

# Before torch and numba load OpenMP: threads that spin while they wait made a fit thirty times slower on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import numpy as np
import pytest

hypothesis.settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("no clock")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with the same seed for every test, so that a failure repeats."""
    return np.random.default_rng(20240)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture(scope="session")
def oracles() -> Path:
    """The published code's inputs and outputs, in the folder `shared` beside the repository; skips without it."""
    folder = REPOSITORY.parent / "shared" / "oracles"
    if not folder.is_dir():
        pytest.skip(f"no oracles: {folder} is not here")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu where there is no CUDA device. torch is imported only if such a test was collected."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _cuda_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _cuda_available() -> bool:
    import torch

    return torch.cuda.is_available()
