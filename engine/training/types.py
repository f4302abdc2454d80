"""What passes between the rooms of training: a clip (numpy, made in workers), a batch (torch), a task and its losses."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from engine.geometry import Orbit


@dataclass(frozen=True)
class Position:
    """Where in the endless sequence of samples a clip stands; a run goes on behind the last one it learned from."""

    reader: int
    """Which of all readers (ranks x workers) read it."""
    epoch: int
    """Passes through the data before this one."""
    index: int
    """Samples, good and bad, that the reader had taken in this epoch before this one; where readers share shards,
    those that the others took count too."""
    batch: int = 0
    """Micro-batches that the reader's process had been given before this one's."""
    ranks: int = 0
    """Processes that read; 0 is unknown."""
    workers: int = 0
    """Readers of each process; 0 is unknown."""


@dataclass(frozen=True)
class Clip:
    """One object's views as a network learns them: augmented, rolled, resized."""

    uid: str
    """The object's, or the 2D picture's."""
    rgba: UInt8[np.ndarray, "n h w 4"]
    """sRGB, straight alpha; the first view is the one that a picture-conditioned network is given. 2D pictures: n = 1."""
    orbit: Orbit | None
    """The views' cameras, as rolled and mirrored as the views are; None for a 2D picture."""
    background: tuple[float, float, float]
    """sRGB, 0 to 1, behind the object."""
    caption: str
    """What text-conditioned networks are told, suffix included."""
    seed: int
    """All that a task draws for this clip (times, noise, dropped conditions) comes from here, so that neither the
    number of processes nor an interruption changes it."""
    position: Position
    """Where in the data it stands."""
    depth_m: Float[np.ndarray, "n h w"] | None = None
    """Planar camera z in metres, 0 where nothing is."""
    degraded: UInt8[np.ndarray, "n h w 3"] | None = None
    """Low-quality views over the background, for the refiner: same size as rgba, the first one clean."""
    pixels_key: str = ""
    """Same key, same pixels but for the start view: what cached latents are found by; empty if it never comes again."""
    start: int = 0
    """View of the stored orbit that is first here (after mirroring)."""


@dataclass(frozen=True)
class Batch:
    """Clips of one shape, stacked."""

    pixels: Float[Tensor, "b n 3 h w"]
    """sRGB over the clips' backgrounds, in [-1, 1]."""
    alpha: Float[Tensor, "b n 1 h w"]
    """0 to 1."""
    orbits: tuple[Orbit, ...] | None
    """Cameras; None for 2D pictures."""
    backgrounds: Float[Tensor, "b 3"]
    """sRGB, 0 to 1."""
    captions: tuple[str, ...]
    """A sentence a clip."""
    uids: tuple[str, ...]
    """An id a clip."""
    seeds: tuple[int, ...]
    """See Clip.seed."""
    positions: tuple[Position, ...]
    """See Clip.position."""
    depth_m: Float[Tensor, "b n h w"] | None = None
    """See Clip.depth_m."""
    degraded: Float[Tensor, "b n 3 h w"] | None = None
    """See Clip.degraded, in [-1, 1]."""
    pixels_keys: tuple[str, ...] = ()
    """See Clip.pixels_key."""
    starts: tuple[int, ...] = ()
    """See Clip.start."""

    def __len__(self) -> int:
        return len(self.uids)

    def alone(self, index: int) -> "Batch":
        """Return the batch of one of its clips."""
        held = {one.name: getattr(self, one.name) for one in fields(self)}
        return Batch(**{name: value[index : index + 1] for name, value in held.items() if value is not None})


class Draws:
    """Random numbers of a batch, each clip's from its own seed: the same in any batch, on any device and rank."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.device = device

    def normal(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Unit normal numbers, [b, *shape]."""
        return self._stacked([torch.randn(shape, generator=generator) for generator in self._generators])

    def uniform(self, *shape: int) -> Float[Tensor, "b ..."]:
        """Uniform numbers in [0, 1), [b, *shape]."""
        return self._stacked([torch.rand(shape, generator=generator) for generator in self._generators])

    def choice(self, count: int, wanted: int) -> Tensor:
        """`wanted` different indices below `count` for each clip, in random order, [b, wanted], on the CPU."""
        return torch.stack([torch.randperm(count, generator=generator)[:wanted] for generator in self._generators])

    def _stacked(self, drawn: list[Tensor]) -> Tensor:
        return torch.stack(drawn).to(self.device)


def seed_from(*parts: object) -> int:
    """Return 63 bits that depend on all the parts, the same on any machine."""
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@dataclass(frozen=True)
class Losses:
    """What a task says of a batch."""

    total: Float[Tensor, ""]
    """What is minimised: a mean over the batch's clips, so that equal batches of several processes average to one."""
    parts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Named terms and measures for the log, detached."""


@runtime_checkable
class Task(Protocol):
    """What is learned. Holds the networks; owns no optimiser, no files, no device but where it is put."""

    student: nn.Module
    """All that is trained, one module; its forward is the only way in which `loss` uses it (DDP, FSDP, compile)."""
    frozen: Mapping[str, nn.Module]
    """What is used and not trained (VAE, image encoder, a generator); in eval mode."""

    def loss(self, student: nn.Module, batch: Batch, *, share: float) -> Losses:
        """Return the losses of a batch, differentiable. `student` may be wrapped; share is the run's, 0 to 1."""

    def measure(self, student: nn.Module, batch: Batch) -> Mapping[str, float]:
        """Return means over a held-out batch, without gradients; "loss" among them, lower is better."""

    def preview(self, student: nn.Module, batch: Batch) -> Mapping[str, UInt8[np.ndarray, "n h w 3"]]:
        """Return named turntables (truth beside made, one clip below the other) for the log."""

    def components(self) -> Mapping[str, Any]:
        """Return what is saved: component's name in the weights' index -> a part of `student` with save_pretrained."""
