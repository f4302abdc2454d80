"""What Hi3D's two networks are told, and how they are sampled: the same in use and in training.

stage 1:  picture + noise --VAE--> latents, the same for every view;  elevation, noise, aesthetic score --> vector
stage 2:  picture, other views enlarged, + noise --VAE--> latents of each view, behind 9 channels of depth
          elevation, noise --> vector

Both stages are told the clean picture's CLIP tokens besides.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from engine.multiview.denoiser import Conditions, Denoiser, OnStep
from engine.multiview.edm import LowResolutionInjection, sample_euler_edm
from engine.multiview.guidance import ALWAYS, GuidanceInterval, Guided, linear_scale, zeroed
from engine.multiview.networks.depth import SHUFFLE, DepthEstimator
from engine.multiview.networks.latents import LatentCodec
from engine.multiview.networks.orbit_video import conditioning_vector
from engine.multiview.schedules import edm_sigmas

DROPPED = ("tokens", "concatenated")
"""What the unconditional branch does not see; the vector is told in both (as the release)."""
DEPTH_CHANNELS = SHUFFLE**2
"""Before the latents among the refiner's concatenated channels."""


def first_stage_conditions(
    picture: Float[Tensor, "b 3 h w"],
    noise: Float[Tensor, "b 3 h w"],
    augmentation: Float[Tensor, " b"],
    *,
    views: int,
    elevation_deg: Float[Tensor, " b"],
    aesthetic: Float[Tensor, " b"] | None,
    codec: LatentCodec,
) -> dict[str, Tensor]:
    """Return what the first stage is told besides tokens: `concatenated` and `vector` (section 4.2).

    Args:
        picture: in [-1, 1].
        noise: unit normal, for the picture.
        augmentation: its standard deviation, one for each object.
        views: how many the orbit has.
        elevation_deg: of the picture's camera.
        aesthetic: a score for each object; None for networks that are told none.
        codec: the VAE; the condition is its mode, not scaled.
    """
    latents = codec.encode(picture + _each(augmentation, picture) * noise, scaled=False)
    return {
        "concatenated": latents[:, None].expand(-1, views, -1, -1, -1),
        "vector": conditioning_vector(elevation_deg, augmentation, aesthetic),
    }


def second_stage_conditions(
    low: Float[Tensor, "b n 3 h w"],
    noise: Float[Tensor, "b n 3 h w"],
    augmentation: Float[Tensor, " b"],
    *,
    elevation_deg: Float[Tensor, " b"],
    codec: LatentCodec,
    depth: DepthEstimator | None,
) -> dict[str, Tensor]:
    """Return what the refiner is told besides tokens: `concatenated` (depth, then latents) and `vector` (section 4.3).

    Args:
        low: low-quality views in [-1, 1] at the refiner's size, the first one clean.
        noise: unit normal, for all of them; VAE and depth network see the noised views, as the release's do.
        augmentation: its standard deviation, one for each object.
        elevation_deg: of the picture's camera.
        codec: the VAE; the condition is its mode, not scaled.
        depth: None tells zeros (the paper's ablation, Table 3).
    """
    noisy = low + _each(augmentation, low) * noise
    latents = codec.encode(noisy, scaled=False)
    if depth is None:
        near = latents.new_zeros(*latents.shape[:2], DEPTH_CHANNELS, *latents.shape[3:])
    else:
        found = depth.hi3d_channels(noisy.flatten(0, 1), (latents.shape[3], latents.shape[4]))
        near = found.to(latents).unflatten(0, latents.shape[:2])
    return {
        "concatenated": torch.cat([near, latents], 2),
        "vector": conditioning_vector(elevation_deg, augmentation, None),
    }


def low_quality_views(
    views: Float[Tensor, "b n 3 h w"], picture: Float[Tensor, "b 3 H W"]
) -> Float[Tensor, "b n 3 H W"]:
    """Return a first stage's views enlarged to the picture's size, the first one replaced by it, as the release does."""
    rest = views[:, 1:].clamp(-1, 1).to(picture)
    size = (picture.shape[2], picture.shape[3])
    enlarged = functional.interpolate(rest.flatten(0, 1), size, mode="bilinear").unflatten(0, rest.shape[:2])
    return torch.cat([picture[:, None], enlarged], 1).clamp(-1, 1)


def sample_stage(
    network: Denoiser,
    conditions: Conditions,
    noise: Float[Tensor, "b n c h w"],
    *,
    steps: int,
    sigma_range: tuple[float, float],
    guidance: tuple[float, float],
    dropped: tuple[str, ...] = DROPPED,
    interval: GuidanceInterval = ALWAYS,
    batched: bool = True,
    dtype: torch.dtype | None = None,
    injection: LowResolutionInjection | None = None,
    on_step: OnStep | None = None,
) -> Float[Tensor, "b n c h w"]:
    """Return clean latents of a stage.

    Args:
        network: its U-Net.
        conditions: what it is told.
        noise: unit normal.
        steps: Euler steps.
        sigma_range: smallest and largest noise level.
        guidance: of the first and the last view, linear between.
        dropped: conditions that are zero in the unconditional branch.
        interval: which steps are guided.
        batched: both branches in one forward.
        dtype: what the network computes in; None for that of the noise.
        injection: stage 2: the low-resolution views that are mixed in.
        on_step: called after every step; raises to stop.
    """
    guided = Guided(network, conditions, zeroed(conditions, dropped), batched=batched, dtype=dtype)
    return sample_euler_edm(
        guided, noise, edm_sigmas(steps, *sigma_range),
        guidance_scale=linear_scale(*guidance, noise.shape[1]).to(noise.device),
        interval=interval, injection=injection, on_step=on_step,
    )  # fmt: skip


def _each(values: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """Return the values, one an object, ready to multiply `like`."""
    return values.to(like).view(-1, *[1] * (like.ndim - 1))
