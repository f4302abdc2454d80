"""Small orbits, splats and meshes for the tests of engine.files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.files import Normalisation, OrbitImages, SplatArrays
from engine.geometry import Ring


def orbit_images(seed: int, *, views: int = 3, width: int = 10, height: int = 8, passes: bool = True) -> OrbitImages:
    """A sample of noise with every field filled; view sizes are unequal so that swapped axes show."""
    rng = np.random.default_rng(seed)
    ring = Ring(f"ring{views}", views, float(rng.uniform(20, 80)), float(rng.uniform(1, 4)), (-80.0, 80.0))
    shape = (views, height, width)
    there = rng.random(shape) > 0.3
    normal = rng.normal(size=(*shape, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    depth = np.where(there, rng.uniform(0.5, 5, shape), 0)
    return OrbitImages(
        uid=f"object-{seed}",
        orbit=ring.orbit(ring.draw_elevation_deg(rng), width, height),
        rgba=rng.integers(0, 256, (*shape, 4), dtype=np.uint8),
        depth_m=depth.astype(np.float32) if passes else None,
        normal=np.where(there[..., None], normal, 0).astype(np.float32) if passes else None,
        albedo=rng.integers(0, 256, (*shape, 3), dtype=np.uint8) if passes else None,
        normalisation=Normalisation(0.37, (1.5, -2.0, 0.25)),
        seed=2**63 + seed,
        renderer={"engine": "CYCLES", "samples": 40},
        caption="a tëst object",
        label="object",
        license="CC0-1.0",
        attribution="the tests",
        source="noise",
        extra={"category": "things", "weights": [1, 2.5]},
    )


def splat_arrays(seed: int, *, count: int = 50, degree: int = 3) -> SplatArrays:
    """Raw splats of noise."""
    rng = np.random.default_rng(seed)
    quaternions = rng.normal(size=(count, 4))
    return SplatArrays(
        means=rng.normal(size=(count, 3)).astype(np.float32),
        log_scales=rng.uniform(-8, -2, (count, 3)).astype(np.float32),
        quaternions=(quaternions / np.linalg.norm(quaternions, axis=1, keepdims=True)).astype(np.float32),
        opacity_logits=rng.normal(scale=4, size=count).astype(np.float32),
        sh=rng.normal(size=(count, (degree + 1) ** 2, 3)).astype(np.float32),
    )


@pytest.fixture(scope="session")
def make_orbit() -> Callable[..., OrbitImages]:
    """Build a sample: make_orbit(seed, views=, width=, height=, passes=)."""
    return orbit_images


@pytest.fixture(scope="session")
def make_splats() -> Callable[..., SplatArrays]:
    """Build splats: make_splats(seed, count=, degree=)."""
    return splat_arrays


@pytest.fixture(scope="session")
def shards(repository: Path) -> Path:
    """The project's real shards in the folder `shared` beside the repository; skips without them."""
    folder = repository.parent / "shared" / "data" / "orbits128"
    if not folder.is_dir():
        pytest.skip(f"no shards: {folder} is not here")
    return folder
