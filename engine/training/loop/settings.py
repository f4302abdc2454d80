"""What one call of `turntable train` asks of the loop, besides the recipe. Plain data, quick to import."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.training.types import Batch, Position


@dataclass(frozen=True)
class LoopSettings:
    """How a run is cut into processes, logged and kept."""

    seed: int = 0
    """Of the data's order, of the tasks' draws and of dropout."""
    minutes: float | None = None
    """Time that the whole run may take, over all calls; then the recipe's number of steps does not count."""
    micro_batch: int | None = None
    """Clips a forward pass on each process; None: batch_size over the processes."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """What the student computes in; auto: the recipe's on a GPU, float32 (no) on a CPU."""
    lora_rank: int | None = None
    """Train adapters of this rank in place of the weights."""
    log_every: int = 10
    """Steps between two entries in TensorBoard; losses.jsonl holds every step."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints."""
    checkpoint_minutes: float = 15.0
    """Minutes after which one is written all the same."""
    keep: int = 2
    """Checkpoints that are kept."""
    validate_every: int = 1000
    """Steps between two validations, each with turntables for the log; there is one at the end as well."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the folder's newest checkpoint where there is one (auto), refuse it (never), or insist (must)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Auto: CUDA where there is a device."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no sense."""
        for name in ("log_every", "checkpoint_every", "keep", "validate_every", "micro_batch", "lora_rank"):
            given = getattr(self, name)
            if given is not None and given < 1:
                raise ValueError(f"{name} must be at least 1, got {given}")
        for name in ("minutes", "checkpoint_minutes"):
            given = getattr(self, name)
            if given is not None and not given > 0:
                raise ValueError(f"{name} must be positive, got {given}")


@dataclass(frozen=True)
class Reader:
    """Who asks for batches."""

    micro_batch: int
    """Clips a batch."""
    rank: int
    """Of this process."""
    ranks: int
    """Processes."""
    start_after: Mapping[int, "Position"] = field(default_factory=dict)
    """Last position learned from, by reader."""


@dataclass(frozen=True)
class Feed:
    """Where batches come from; functions, because the loop knows only late who reads and from where on."""

    train: Callable[[Reader], "Iterable[Batch]"]
    """Endless, in the run's order."""
    held_out: Callable[[Reader], "Iterable[Batch]"] | None = None
    """One pass over held-out objects, without chance; always the same. None: no validation."""


def close(batches: object) -> None:
    """Let a loader's workers go now, not when Python happens to."""
    ending = getattr(batches, "close", None)
    if ending is not None:
        ending()
