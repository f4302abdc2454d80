"""Hi3D's networks for training: from a folder of our weights, or with random numbers where it holds none.

a refiner of a first stage:  conv_in  [noisy | latents] -> [noisy | 0 (depth) | latents]
                             vector   [... | elevation | augmentation] -> [elevation | augmentation]
"""

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from transformers.models.dpt.configuration_dpt import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTForDepthEstimation

from engine.errors import TrainingError
from engine.multiview.hi3d_conditions import DEPTH_CHANNELS
from engine.multiview.networks.depth import DepthEstimator
from engine.multiview.networks.encoders import ImageEncoder
from engine.multiview.networks.orbit_video import SINUSOID_WIDTH, OrbitVideoUNet
from engine.multiview.settings import Hi3DSettings
from engine.training.tasks.components import Start
from engine.training.tasks.settings import ImageEncoderSize

FRESH_DEPTH_BIAS = 1.0
"""Of a fresh depth network's output, which ends in a ReLU: from random weights alone half of them would never learn."""

log = logging.getLogger(__name__)


def system_of(start: Start, settings: Hi3DSettings) -> Hi3DSettings:
    """Return the settings with the scaling that belongs to the given autoencoder."""
    scaling = start.settings("vae").get("latent_scaling")
    return settings if scaling is None else replace(settings, latent_scaling=float(scaling))


def taken_vae(start: Start, arguments: Mapping[str, Any], pretrained: Collection[str]) -> AutoencoderKL:
    """Return the autoencoder: the given weights', else a random one. Raises as `Start.component`."""
    return start.component("vae", "AutoencoderKL", lambda: AutoencoderKL(**arguments), pretrained)


def taken_image_encoder(start: Start, size: ImageEncoderSize, pretrained: Collection[str]) -> ImageEncoder:
    """Return the image encoder, likewise."""
    return start.component(
        "image_encoder", "ImageEncoder", lambda: ImageEncoder.fresh("hi3d", **asdict(size), seed=start.seed), pretrained
    )


def taken_depth(start: Start, config: Mapping[str, Any], pretrained: Collection[str]) -> DepthEstimator:
    """Return the depth network, likewise."""
    return start.component("depth", "DepthEstimator", lambda: made_depth(config), pretrained)


def taken_refiner(start: Start, arguments: Mapping[str, Any], pretrained: Collection[str]) -> OrbitVideoUNet:
    """Return the refiner: the given weights', else one that starts from their first stage, else a random one."""
    if start.folder("refiner") is None and start.folder("unet") is not None:
        log.info("the refiner starts from the first stage of %s", start.folder("unet"))
        return refiner_from_first_stage(start.component("unet", "OrbitVideoUNet", OrbitVideoUNet))
    return start.component("refiner", "OrbitVideoUNet", lambda: OrbitVideoUNet(**arguments), pretrained)


def made_depth(config: Mapping[str, Any]) -> DepthEstimator:
    """Return a depth network with random weights that can learn."""
    network = DPTForDepthEstimation(DPTConfig(**json.loads(json.dumps(config))))  # it takes lists, not tuples
    nn.init.constant_(network.head.head[4].bias, FRESH_DEPTH_BIAS)
    return DepthEstimator(network)


def refiner_from_first_stage(unet: OrbitVideoUNet) -> OrbitVideoUNet:
    """Return a refiner that does at first what the first stage does: zeros for depth, no score (as the release's start).

    The release starts from Stable Video Diffusion, whose second block of the vector (motion) it drops; a first stage's
    holds the elevation already, which is kept.
    """
    config = dict(unet.config)
    noisy, vector = config["out_channels"], 2 * SINUSOID_WIDTH
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    arguments |= {"in_channels": 2 * noisy + DEPTH_CHANNELS, "projection_class_embeddings_input_dim": vector}
    made = OrbitVideoUNet(**arguments)
    tensors = unet.state_dict()
    first = tensors["conv_in.weight"]
    depth = first.new_zeros(len(first), DEPTH_CHANNELS, *first.shape[2:])
    tensors["conv_in.weight"] = torch.cat([first[:, :noisy], depth, first[:, noisy:]], 1)
    tensors["add_embedding.linear_1.weight"] = tensors["add_embedding.linear_1.weight"][:, -vector:]
    made.load_state_dict(tensors)
    return made


def check_widths(unet: OrbitVideoUNet, vae: AutoencoderKL, image_encoder: ImageEncoder, more: int = 0) -> None:
    """Raise TrainingError unless a U-Net reads and writes this autoencoder's latents and this encoder's tokens.

    Args:
        unet: of either stage.
        vae: its latents.
        image_encoder: its tokens.
        more: channels besides the noisy and the condition's latents: 9 for depth.
    """
    latents, config = int(vae.config.latent_channels), unet.config
    for what, found, expected in (
        ("in_channels", config.in_channels, 2 * latents + more),
        ("out_channels", config.out_channels, latents),
        ("cross_attention_dim", config.cross_attention_dim, image_encoder.width),
    ):
        if found != expected:
            raise TrainingError(
                f"the U-Net's {what} must be {expected} for this VAE ({latents} channels) and image encoder "
                f"({image_encoder.width} wide), got {found}; give weights that belong together"
            )
