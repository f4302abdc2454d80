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
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.networks.tokenizer import train_tokenizer
from engine.multiview.settings import Hi3DSettings, VideoMVSettings
from engine.multiview.sizes import TINY_UNET, TINY_VIDEO_UNET, TINY_WIDTH, tiny_vae
from engine.multiview.videomv import VideoMVPipeline
from engine.splats.reconstructor import CONFIGS, GaussianUNet

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
            "vae": AutoencoderKL(**tiny_vae(3)),
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
            "vae": AutoencoderKL(**tiny_vae(4)),
        }
    components["image_encoder"] = ImageEncoder.fresh("hi3d", embedding=TINY_WIDTH, seed=seed)
    components["aesthetic"] = AestheticScorer.fresh(seed=seed)
    components["depth"] = DepthEstimator.fresh(seed=seed)
    return Hi3DPipeline(settings, _ready(components))


def _ready(components: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part.eval().requires_grad_(False) for name, part in components.items()}
