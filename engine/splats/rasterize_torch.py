"""The oracle: 3D Gaussian splatting in plain torch, written to be read. Slow; autograd gives its gradients."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engine.geometry import Camera
from engine.splats.gaussians import Gaussians
from engine.splats.limits import ALPHA_MAX, ALPHA_MIN, NEAR_M, TRANSMITTANCE_MIN
from engine.splats.projection import features_seen_from, project_gaussians

TILE_PX = 16


def rasterize(
    gaussians: Gaussians, cameras: Sequence[Camera], *, geometry: bool
) -> tuple[Float[Tensor, "c f h w"], Float[Tensor, "c h w"]]:
    """Blend features (3 colour; with geometry also z and 3 normal) front to back: features and alpha a camera."""
    pictures = [_one_view(gaussians, camera, geometry=geometry) for camera in cameras]
    return torch.stack([p[0] for p in pictures]), torch.stack([p[1] for p in pictures])


def _one_view(gaussians: Gaussians, camera: Camera, *, geometry: bool) -> tuple[Tensor, Tensor]:
    ellipses = project_gaussians(gaussians, camera)
    features = features_seen_from(gaussians, camera, ellipses.depth_m, geometry=geometry)
    opacity = gaussians.opacity_logits.sigmoid()
    with torch.no_grad():
        # An ellipse reaches as far as its alpha stays above ALPHA_MIN.
        reach = (2 * (opacity / ALPHA_MIN).clamp_min(1).log()).sqrt()
        half = reach[:, None] * ellipses.covariances.diagonal(dim1=1, dim2=2).sqrt()
        low, high = ellipses.pixels - half, ellipses.pixels + half
        drawn = (ellipses.depth_m > NEAR_M) & (opacity >= ALPHA_MIN)
        order = torch.argsort(ellipses.depth_m, stable=True)
        order = order[drawn[order]]
    conics = torch.linalg.inv(ellipses.covariances)
    rows = []
    for top in range(0, camera.height, TILE_PX):
        row = []
        for left in range(0, camera.width, TILE_PX):
            bottom, right = min(top + TILE_PX, camera.height), min(left + TILE_PX, camera.width)
            hit = (high[order, 0] > left) & (low[order, 0] < right) & (high[order, 1] > top) & (low[order, 1] < bottom)
            chosen = order[hit]
            u, v = torch.meshgrid(torch.arange(left, right), torch.arange(top, bottom), indexing="xy")
            centres = (torch.stack([u, v], -1).reshape(-1, 2) + 0.5).to(opacity)
            splats = (ellipses.pixels[chosen], conics[chosen], opacity[chosen], features[chosen])
            # Checkpointed, so that memory is that of one tile: the backward pass blends it again.
            tile = checkpoint(_blend, centres, *splats, use_reentrant=False)
            row.append(tile.reshape(bottom - top, right - left, -1))
        rows.append(torch.cat(row, 1))
    picture = torch.cat(rows, 0).permute(2, 0, 1)
    return picture[:-1], picture[-1]


def _blend(centres: Tensor, pixels: Tensor, conics: Tensor, opacity: Tensor, features: Tensor) -> Tensor:
    """Blend depth-sorted ellipses into pixels: [p, f + 1], features and alpha (3DGS equation 3)."""
    offset = centres[:, None] - pixels[None]  # [p, g, 2]
    power = 0.5 * torch.einsum("pgi,gij,pgj->pg", offset, conics, offset)
    alpha = (opacity * torch.exp(-power)).clamp_max(ALPHA_MAX)
    alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0.0)
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    weights = torch.where(after > TRANSMITTANCE_MIN, alpha * before, 0.0)
    return weights @ torch.cat([features, torch.ones_like(opacity)[:, None]], 1)
