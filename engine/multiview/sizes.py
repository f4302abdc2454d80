"""Sizes of networks, as arguments of their classes: the autoencoder that all releases share, and tiny ones for tests.

Quick to import: no torch here.
"""

from collections.abc import Mapping
from typing import Any

RELEASED_VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""AutoencoderKL: Stable Diffusion's, which all releases share (Rombach et al. 2022, f = 8)."""

TINY_WIDTH = 32
"""Of tokens and embeddings."""
TINY_UNET: Mapping[str, Any] = {
    "sample_size": None,
    "down_block_types": ("CrossAttnDownBlock3D", "DownBlock3D"),
    "up_block_types": ("UpBlock3D", "CrossAttnUpBlock3D"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": TINY_WIDTH,
    "attention_head_dim": 16,
    "temporal_in_heads": 2,
}
"""TextOrbitUNet and ImageOrbitUNet."""
TINY_VIDEO_UNET: Mapping[str, Any] = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": TINY_WIDTH,
    "num_attention_heads": (2, 4),
}
"""OrbitVideoUNet."""


def tiny_vae(levels: int) -> dict[str, Any]:
    """Return AutoencoderKL's arguments: f = 4 with 3 levels, 8 with 4."""
    return {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (16, 32, 32, 32)[:levels],
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "latent_channels": 4,
    }
