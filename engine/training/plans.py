"""What a recipe says, as plain data: what is fed, how it is optimised. Quick to import: no torch here."""

from dataclasses import dataclass, field
from typing import Literal

RecipeName = Literal[
    "videomv-text",
    "videomv-image",
    "videomv-2d-joint",
    "reconstructor",
    "hi3d-base",
    "hi3d-refiner",
    "vae",
    "depth",
    "expectation-image",
    "expectation-text",
    "expectation-hi3d",
]
"""What can be trained; expectations are a part of small networks alone."""
Size = Literal["full", "mini", "tiny"]
"""full: as published. mini: the small family that ships with the project. tiny: for tests."""


@dataclass(frozen=True)
class DataPlan:
    """How stored orbits become clips."""

    orbit: str = "ring24"
    """Name of the orbits that are taken from the shards (ring24, ring16, or * for any); others are passed over."""
    views: int = 24
    """Views of a clip; fewer than the orbit has are drawn at random, the first one among them (vae, depth)."""
    size_px: int = 256
    """Side of the views; stored views are averaged down to it, never enlarged."""
    background: tuple[float, float, float] | Literal["random"] = (1.0, 1.0, 1.0)
    """sRGB, 0 to 1, behind the object; random: a colour a clip, white and grey 128 in a third of them each."""
    roll: float = 1.0
    """Share of the clips that start at a random view, the cameras rolled as well; the others start at the stored first one,
    which shows most objects from the side or the front: their views are alike in ways that others' are not."""
    rebase: bool = False
    """Turn the world so that the first view stands at azimuth 0, as pipelines that start from a picture say it."""
    mirror: float = 0.0
    """Share of clips that are mirrored, cameras as well."""
    colour: float = 0.0
    """Strength of brightness, contrast, saturation and hue jitter, the same for all views: 0 none, 1 strong."""
    caption: Literal["object", "empty"] = "empty"
    """object: the sample's caption, else its label; a sample with neither is an error that names it."""
    caption_suffix: str = ""
    """Appended to captions."""
    depth: bool = False
    """Whether depth is needed; samples without are an error that names them."""
    degrade: bool = False
    """Whether Hi3D's second stage needs low-quality views."""
    variants: int = 0
    """Different augmentations an object; 0 is endless, a number lets latents be cached."""
    picture_share: float = 0.0
    """Share of the steps that learn from 2D pictures (--pictures), as orbits of one view without cameras."""


@dataclass(frozen=True)
class Optimisation:
    """How the student learns."""

    steps: int
    """Optimiser steps of a whole run."""
    batch_size: int
    """Clips a step, over all processes and accumulated micro-batches."""
    learning_rate: float
    """At its highest."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = 0.0
    """Of AdamW."""
    schedule: Literal["constant", "cosine", "onecycle"] = "constant"
    """After the warm-up: constant, cosine to 0 over `schedule_steps`, or torch's OneCycle."""
    warmup_steps: int = 0
    """Steps over which the rate rises from 0."""
    schedule_steps: int | None = None
    """Steps over which the rate falls; None: all of them."""
    clip_norm: float | None = None
    """Gradients are scaled down to this norm; None leaves them."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, warmed up; None keeps none."""
    precision: Literal["no", "bf16", "fp16"] = "bf16"
    """Of autocast; weights stay float32."""
    slowed: float = 1.0
    """Factor on the gradients of parameters that the task calls pretrained (VideoMV: 0.5)."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: a third slower, far less memory."""


@dataclass(frozen=True)
class Recipe:
    """One row of `turntable train`."""

    name: RecipeName
    """As it is typed."""
    size: Size
    """Which of the sizes."""
    summary: str
    """One line for --help and errors."""
    data: DataPlan
    """What is fed."""
    optimisation: Optimisation
    """How it is learned."""
    sources: tuple[str, ...] = field(default=())
    """Where each hyper-parameter comes from: paper and section, or "the release's configuration"."""
    task: object = None
    """What only its task needs, a frozen dataclass of plain data: networks' sizes, shares that are dropped, weights of
    losses (`engine.training.tasks.settings` has VideoMV's)."""
