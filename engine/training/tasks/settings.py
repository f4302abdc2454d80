"""What only VideoMV's tasks need, as plain data (Recipe.task): networks' sizes, dropped conditions, weights of losses.

Quick to import: no torch here. Mappings hold arguments of the networks' classes; what they leave out is the class's
default, which is the released size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.multiview.settings import VideoMVSettings
from engine.multiview.sizes import RELEASED_VAE


@dataclass(frozen=True)
class TextEncoderSize:
    """Of a text encoder that starts from nothing (`TextEncoder.fresh`)."""

    width: int = 32
    """Length of a token's vector."""
    layers: int = 2
    """Transformer layers."""
    head_width: int = 16
    """Width of an attention head."""
    merges: int = 64
    """Tokens that its tokenizer learns besides bytes."""
    corpus: tuple[str, ...] = ("a red lighthouse on a rock", "a wooden chair with a blue cushion", "a small green dino")
    """Texts from which the tokenizer learns them."""


@dataclass(frozen=True)
class ImageEncoderSize:
    """Of an image encoder that starts from nothing (`ImageEncoder.fresh`)."""

    width: int = 32
    """Of its inner vectors."""
    layers: int = 2
    """Transformer layers."""
    head_width: int = 16
    """Width of an attention head."""
    size_px: int = 56
    """Side at which it sees pictures."""
    patch_px: int = 14
    """Side of a patch."""
    embedding: int = 32
    """Length of an embedding: the denoiser's cross_attention_dim."""


@dataclass(frozen=True)
class VideoMVNetworks:
    """Sizes of the components where no weights are given; the defaults are the releases'."""

    unet: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of TextOrbitUNet or ImageOrbitUNet."""
    vae: Mapping[str, Any] = field(default_factory=lambda: dict(RELEASED_VAE))
    """Arguments of AutoencoderKL."""
    text_encoder: TextEncoderSize = TextEncoderSize(1024, 23, 64)
    """OpenCLIP's ViT-H-14 up to the block where tokens are taken (its vocabulary comes with its weights only)."""
    image_encoder: ImageEncoderSize = ImageEncoderSize(1280, 32, 80, 224, 14, 1024)
    """OpenCLIP's ViT-H-14; for picture weights."""


@dataclass(frozen=True)
class VideoMVTask:
    """What videomv-text, videomv-image and videomv-2d-joint learn."""

    settings: VideoMVSettings
    """Saved beside the weights: what kind, schedule and prediction, scaling of latents, prompts."""
    networks: VideoMVNetworks = field(default_factory=VideoMVNetworks)
    """For what the given weights do not hold."""
    pretrained: tuple[str, ...] = ()
    """Components that must come from given weights; the others start from random numbers where there are none."""
    trained: tuple[str, ...] = ("unet",)
    """Components that learn: unet, and text_encoder or image_encoder."""
    late: float = 0.0
    """Share of the clips whose time is drawn from the last three tenths, where the shape is decided, not from all."""
    visible: bool = False
    """Weigh the channels of the error by how much they show, see `networks.latents.visibility`."""
    alike: bool = False
    """Weigh a clip's error by how little its views differ from the first: a vase, where a small error shows, then counts
    as much as a bicycle, as it does where decibels are averaged."""
    drop: float = 0.1
    """Share of the clips that are told what the unconditional branch is told at inference."""
    offset_noise: float = 0.0
    """Standard deviation of the noise added to a whole channel of a view (0.1: VideoMV's from pictures)."""
    preview_steps: int = 10
    """DDIM steps of a preview."""


@dataclass(frozen=True)
class VaeTask:
    """What `vae` learns."""

    network: Mapping[str, Any] = field(default_factory=lambda: dict(RELEASED_VAE))
    """Arguments of AutoencoderKL where no weights are given."""
    pretrained: tuple[str, ...] = ()
    """("vae",) where it must come from given weights."""
    error: Literal["l1", "l2"] = "l1"
    """Of pixels in [-1, 1]."""
    perceptual_weight: float = 1.0
    """Of LPIPS, where a backbone is given."""
    kl_weight: float = 1e-6
    """Of the posterior's divergence from the unit normal, summed over a picture's latents, against the error, summed
    over its pixels (so that it is the weight of Rombach et al. 2022); both are then divided by the number of pixels."""
    learns: Literal["both", "decoder"] = "both"
    """Both halves, or the decoder alone: the latents stay what they are, and denoisers that learned them stay good."""
    crop_px: int | None = None
    """Side of the squares around the object that it learns from; None: whole views. Measured on whole ones."""
    latent_scaling: float = 0.18215
    """Saved beside the weights until `measure` has seen what brings latents to unit variance."""


@dataclass(frozen=True)
class ReconstructorTask:
    """What `reconstructor` learns."""

    network: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of GaussianUNet where no weights are given; the defaults are LGM's "big"."""
    pretrained: tuple[str, ...] = ()
    """Components that must come from given weights: the generator's, and "reconstructor" itself to start from LGM."""
    source: Literal["generated", "true"] = "generated"
    """generated: views as a frozen generator sees them after one denoising step (VideoMV section 3.3); true: the stored
    views, with LGM's augmentations."""
    generator: VideoMVTask | None = None
    """The frozen generator where its weights are not given, and its settings where its weights do not say them."""
    last_time: int = 700
    """Largest time of that step, of 1000."""
    guessed: float = 0.0
    """Share of the clips whose step works on from the generator's own guess out of pure noise, not from the true views."""
    supervised: int | None = None
    """Views that are rendered and compared: those put in, then others; None: all."""
    render_px: int | None = None
    """Side of the renderings; None: as large as the stored views."""
    random_background: bool = False
    """Compare over a random colour, instead of the clip's."""
    alpha_weight: float = 1.0
    """Of the squared error of alpha."""
    perceptual_weight: float = 1.0
    """Of LPIPS, where a backbone is given."""
    perceptual_from: float = 0.0
    """Share of the run before LPIPS counts: early on it makes LGM collapse to white (LGM's issues 35 and 46)."""
    perceptual_px: int = 256
    """Side at which LPIPS compares."""
    distortion: float = 0.5
    """Share of the clips whose input views but the first are distorted (true views only)."""
    jitter: float = 0.5
    """Share of the clips whose input cameras but the first are turned (true views only)."""
