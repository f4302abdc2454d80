"""Objects of a few Gaussians, photographed by our own renderer, as batches that a loader would make of them."""

import numpy as np
import torch

from engine.geometry import RING24, Orbit
from engine.splats import Gaussians
from engine.splats.rendering import render_colours
from engine.training.types import Batch, Position

CAPTIONS = ("a red lighthouse on a rock, 3d asset", "a wooden chair with a blue cushion, 3d asset")
BLOBS = 7


def thing(number: int) -> Gaussians:
    """Return an object within the unit cube, a few opaque coloured blobs; another number, another object."""
    generator = torch.Generator().manual_seed(number)
    colours = torch.rand(BLOBS, 1, 3, generator=generator)
    return Gaussians(
        0.6 * torch.rand(BLOBS, 3, generator=generator) - 0.3,
        torch.log(0.06 + 0.08 * torch.rand(BLOBS, 3, generator=generator)),
        torch.randn(BLOBS, 4, generator=generator),
        torch.full((BLOBS,), 4.0),
        (colours - 0.5) / 0.28209479,
    )


def orbit_of(size: int = 32, elevation_deg: float = 15.0, every: int = 1, start: int = 0) -> Orbit:
    """Return every few views of ring24, from one of them on."""
    ring = RING24.orbit(elevation_deg, size, size)
    return ring.subset([(start + i) % 24 for i in range(0, 24, every)])


@torch.no_grad()
def batch_of(
    numbers: tuple[int, ...] = (0, 1),
    orbit: Orbit | None = None,
    seeds: tuple[int, ...] | None = None,
    background: tuple[float, float, float] = (1.0, 1.0, 1.0),
    keys: tuple[str, ...] = (),
) -> Batch:
    """Photograph objects; None takes ring24 at 32 px."""
    orbit = orbit or orbit_of()
    behind = torch.tensor(background).view(3, 1, 1)
    pictures = [render_colours(thing(number), orbit.cameras) for number in numbers]
    return Batch(
        pixels=torch.stack(
            [2 * (colour + (1 - alpha)[:, None] * behind).clamp(0, 1) - 1 for colour, alpha in pictures]
        ),
        alpha=torch.stack([alpha[:, None] for _, alpha in pictures]),
        orbits=(orbit,) * len(numbers),
        backgrounds=torch.tensor(background).expand(len(numbers), 3),
        captions=tuple(CAPTIONS[number % 2] for number in numbers),
        uids=tuple(f"thing-{number}" for number in numbers),
        seeds=seeds or tuple(100 + number for number in numbers),
        positions=tuple(Position(0, 0, index) for index in range(len(numbers))),
        pixels_keys=keys,
        starts=(0,) * len(numbers),
    )


def picture_batch(count: int = 2) -> Batch:
    """Return 2D pictures: one view each, no cameras."""
    generator = np.random.default_rng(0)
    pixels = torch.from_numpy(generator.uniform(-1, 1, (count, 1, 3, 32, 32)).astype(np.float32))
    return Batch(
        pixels=pixels,
        alpha=torch.ones(count, 1, 1, 32, 32),
        orbits=None,
        backgrounds=torch.ones(count, 3),
        captions=tuple(("a lighthouse", "a chair")[index % 2] for index in range(count)),
        uids=tuple(f"picture-{index}" for index in range(count)),
        seeds=tuple(range(count)),
        positions=(Position(0, 0, 0),) * count,
    )
