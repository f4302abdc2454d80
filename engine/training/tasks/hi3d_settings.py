"""What Hi3D's tasks need besides a recipe's data and optimisation. Plain data, quick to import: no torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.multiview.settings import Hi3DSettings
from engine.training.tasks.settings import ImageEncoderSize


@dataclass(frozen=True)
class LogNormal:
    """A random number exp(mean + deviation * n), n unit normal."""

    mean: float
    """Of its natural logarithm."""
    deviation: float
    """Of its natural logarithm."""


@dataclass(frozen=True)
class Diffusion:
    """What is drawn for a clip of either stage; the defaults are the release's."""

    sigma: LogNormal = LogNormal(1.0, 1.6)
    """Noise level of the latents, one for all views of a clip."""
    augmentation: LogNormal = LogNormal(-3.0, 0.5)
    """Standard deviation of the noise on the condition's pixels in [-1, 1] (cond_aug)."""
    drop_tokens: float = 0.1
    """Share of the clips that are told no CLIP tokens."""
    drop_latents: float = 0.1
    """Share of the clips (or views, see `drop_by`) that are told no latents, drawn by itself."""
    drop_by: Literal["clip", "view"] = "clip"
    """Latents are dropped for all views of a clip together, which is what guidance asks for when it samples, or for
    each view by itself, as the release's first stage does."""
    visible: bool = False
    """Weigh the channels of the error by how much they show, see `networks.latents.visibility`."""
    alike: bool = False
    """Weigh a clip's error by how little its views differ from the first, see `weighing.weighed`."""

    def __post_init__(self) -> None:
        """Raise ValueError for shares that are none."""
        if not (0 <= self.drop_tokens <= 1 and 0 <= self.drop_latents <= 1):
            raise ValueError(
                f"drop_tokens and drop_latents must be shares, 0 to 1, got {self.drop_tokens} and {self.drop_latents}"
            )


@dataclass(frozen=True)
class BaseSettings:
    """Hi3D's first stage: a picture to an orbit."""

    system: Hi3DSettings
    """What the weights will be used as; it goes into their index."""
    unet: Mapping[str, Any]
    """OrbitVideoUNet's arguments where no weights are given."""
    vae: Mapping[str, Any]
    """AutoencoderKL's, likewise."""
    image_encoder: ImageEncoderSize
    """Of the image encoder, likewise."""
    aesthetic: Mapping[str, Any] | None
    """AestheticScorer's, likewise; None for a network that is told no score (its vector holds 512 numbers)."""
    pretrained: tuple[str, ...] = ()
    """Components that must come from given weights; the others start from random numbers where these lack them."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    """What is drawn for a clip."""
    train_image_encoder: bool = False
    """Train the image encoder along, where no published one is taken."""
    preview_steps: int = 10
    """Euler steps of a preview."""
    scored_view: Literal["middle", "first"] = "middle"
    """Whose aesthetic score is told: the target's middle view (the release's training) or the picture's, which is the
    one that is known in use."""


@dataclass(frozen=True)
class RefinerSettings:
    """Hi3D's second stage: an orbit of low quality to one of high quality."""

    system: Hi3DSettings
    """What the weights will be used as; it goes into their index."""
    unet: Mapping[str, Any]
    """OrbitVideoUNet's arguments where no weights are given."""
    vae: Mapping[str, Any]
    """AutoencoderKL's, likewise."""
    image_encoder: ImageEncoderSize
    """Of the image encoder, likewise. It is frozen: both stages share it."""
    depth: Mapping[str, Any]
    """DPTConfig's, likewise."""
    pretrained: tuple[str, ...] = ()
    """Components that must come from given weights; the others start from random numbers where these lack them."""
    diffusion: Diffusion = field(default_factory=Diffusion)
    """What is drawn for a clip."""
    drop_depth: bool = True
    """Depth is dropped with the latents, as the unconditional branch sees it in use; the release's training never
    does."""
    without: tuple[Literal["depth"], ...] = ()
    """Conditions that are zero in training and in use, to measure what they are worth (the paper's Table 3)."""
    preview_steps: int = 10
    """Euler steps of a preview."""
    stage_one_share: float = 0.5
    """Share of the clips whose low-quality views are a first stage's, where one is given; the others' are degraded."""
    stage_one_steps: int | None = None
    """Steps of that first stage; None: its default."""
    lasting: bool = False
    """Make a clip's low-quality views once, with their noise, and keep what is told of them for when its pixels come again:
    where first stage, autoencoder and depth network cost more than the student. Degraded views, which are drawn anew in
    every pass, do not last: stage_one_share must be 1."""

    def __post_init__(self) -> None:
        """Raise ValueError for a share that is none, or degraded views that should last."""
        if not 0 <= self.stage_one_share <= 1:
            raise ValueError(f"stage_one_share must be a share, 0 to 1, got {self.stage_one_share}")
        if self.lasting and self.stage_one_share < 1:
            raise ValueError(
                f"lasting low-quality views are a first stage's alone, got a share of {self.stage_one_share}"
            )


@dataclass(frozen=True)
class DepthSettings:
    """Relative inverse depth of single views."""

    network: Mapping[str, Any]
    """DPTConfig's arguments where no weights are given."""
    pretrained: tuple[str, ...] = ()
    """("depth",) where it must come from given weights."""
    augmentation: LogNormal | None = LogNormal(-3.0, 0.5)
    """Standard deviation of the noise on the pictures in [-1, 1]: the refiner's depth is that of noised views."""
    gradient_weight: float = 0.5
    """Of the gradient matching against the scale- and shift-invariant error."""
    scales: int = 4
    """Sizes at which gradients are matched, each half the one before."""
    trimmed: float = 0.0
    """Share of a view's pixels, those with the largest errors, that are forgiven: for labels with outliers."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        if not 0 <= self.trimmed < 1 or self.scales < 1:
            raise ValueError(
                f"trimmed must lie in [0, 1) and scales be at least 1, got {self.trimmed} and {self.scales}"
            )
