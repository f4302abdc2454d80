"""Pipelines with random weights: small ones for tests (the presets tiny and tiny-hi3d), and the released sizes."""

from collections.abc import Mapping
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.networks.aesthetic import AestheticScorer
from engine.multiview.networks.depth import DepthEstimator
from engine.multiview.networks.encoders import ImageEncoder, TextEncoder, seeded
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.text_orbit import ATTENTION_DOWN, ATTENTION_UP, PLAIN_DOWN, PLAIN_UP, TextOrbitUNet
from engine.multiview.networks.tokenizer import train_tokenizer
from engine.multiview.settings import Hi3DSettings, VideoMVSettings
from engine.multiview.videomv import VideoMVPipeline
from engine.splats.reconstructor import CONFIGS, GaussianUNet

TINY_WIDTH = 32
"""Of tokens and embeddings."""
TINY_UNET: Mapping[str, Any] = {
    "sample_size": None,
    "down_block_types": (ATTENTION_DOWN, PLAIN_DOWN),
    "up_block_types": (PLAIN_UP, ATTENTION_UP),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": TINY_WIDTH,
    "attention_head_dim": 16,
    "temporal_in_heads": 2,
}
TINY_VIDEO_UNET: Mapping[str, Any] = {
    "down_block_types": ("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
    "up_block_types": ("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": TINY_WIDTH,
    "num_attention_heads": (2, 4),
}
RELEASED_VAE: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""Stable Diffusion's autoencoder, which all releases share."""
WORDS = (
    "a red lighthouse on a rock", "a wooden chair with a blue cushion", "a small green dinosaur", "a yellow taxi",
    "an old leather sofa", "a medieval helmet made of steel", "a white cup", "a potted plant with large leaves",
)  # fmt: skip
"""What the tiny tokenizer learns its merges from."""


def random_videomv(settings: VideoMVSettings, seed: int = 0) -> VideoMVPipeline:
    """Return a tiny VideoMV with random weights, a reconstructor included; the same seed gives the same weights."""
    unet = TextOrbitUNet if settings.kind == "text" else ImageOrbitUNet
    with seeded(seed):
        components: dict[str, Any] = {
            "unet": unet(**TINY_UNET),
            "vae": _tiny_vae(levels=3),
            "reconstructor": GaussianUNet(**{**CONFIGS["test"], "radius_m": None}),
        }
    components["text_encoder"] = TextEncoder.fresh(train_tokenizer(WORDS, 64), width=TINY_WIDTH, seed=seed)
    if settings.kind == "picture":
        components["image_encoder"] = ImageEncoder.fresh("videomv", embedding=TINY_WIDTH, seed=seed)
    return VideoMVPipeline(settings, _ready(components))


def random_hi3d(settings: Hi3DSettings, seed: int = 0) -> Hi3DPipeline:
    """Return a tiny Hi3D with random weights, both stages; the same seed gives the same weights."""
    with seeded(seed):
        components: dict[str, Any] = {
            "unet": OrbitVideoUNet(**TINY_VIDEO_UNET),
            "refiner": OrbitVideoUNet(**TINY_VIDEO_UNET, in_channels=17, projection_class_embeddings_input_dim=512),
            "vae": _tiny_vae(levels=4),
        }
    components["image_encoder"] = ImageEncoder.fresh("hi3d", embedding=TINY_WIDTH, seed=seed)
    components["aesthetic"] = AestheticScorer.fresh(seed=seed)
    components["depth"] = DepthEstimator.fresh(seed=seed)
    return Hi3DPipeline(settings, _ready(components))


def _tiny_vae(levels: int) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(16, 32, 32, 32)[:levels],
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
    )


def _ready(components: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part.eval().requires_grad_(False) for name, part in components.items()}
