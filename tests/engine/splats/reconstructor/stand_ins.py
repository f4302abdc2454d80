"""Gaussians that tests know."""

import torch

from engine.splats.gaussians import Gaussians


def blobs(count: int, *, radius: float = 0.3, seed: int = 7) -> Gaussians:
    """Solid flat ellipsoids of all directions and colours around the origin."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = means * radius * torch.rand(count, 1, generator=generator) ** (1 / 3)
    quaternions = torch.randn(count, 4, generator=generator)
    sizes = torch.tensor([0.04, 0.02, 0.005]).log().expand(count, 3)
    colours = torch.randn(count, 1, 3, generator=generator)
    return Gaussians(means, sizes.clone(), quaternions, torch.full((count,), 2.0), colours)
