"""One update of the weights, on one of several processes that all do the same with other clips.

    micro-batches --task.loss--> gradients --(slowed, clipped)--> AdamW --> moving average
         |                                                            |
    positions, by reader                                      Taken, for the journal

All that chance decides in a step comes from the run's seed and the step's number: a run that was interrupted makes the
same steps as one that was not.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, gather_object
from torch import Tensor, nn

from engine.errors import TrainingError, named
from engine.training.loop.ema import MovingAverage
from engine.training.loop.names import plain_name
from engine.training.loop.processes import Shares
from engine.training.loop.schedule import Budget, Rate, rate_at
from engine.training.loop.settings import LoopSettings
from engine.training.loop.state import Progress
from engine.training.plans import Recipe
from engine.training.types import Batch, Losses, Position, Task, seed_from

MOST_SKIPPED = 20
"""Updates in a row that fp16's scaler may refuse: it halves its factor of 65536 each time, and 16 times is all of it."""


class NoNumberError(TrainingError):
    """A loss or a gradient that is not finite."""


@dataclass(frozen=True)
class Setup:
    """A task made ready to learn, on this process."""

    task: Task
    recipe: Recipe
    settings: LoopSettings
    budget: Budget
    accelerator: Accelerator
    shares: Shares
    student: nn.Module
    """As accelerate wraps it."""
    optimizer: torch.optim.Optimizer
    """As accelerate wraps it."""
    average: MovingAverage | None
    """Of the student's trained parameters."""
    network: str
    """See `names.network_key`."""


@dataclass(frozen=True)
class Taken:
    """A step that was taken."""

    loss: float
    """Mean over all clips of all processes."""
    rate: float
    """Learning rate."""
    norm: float
    """Of the gradient, before it was clipped; NaN where it is not known (DeepSpeed's first steps)."""
    seconds: float
    """Wall time, waiting for data included."""
    waited: float
    """Seconds of it that this process waited for data."""
    skipped: bool
    """Whether fp16's scaler refused the update."""
    stop: bool
    """Whether any process was told to stop."""
    clock: float
    """Seconds that this call has trained for, by the first process's clock: the same on all."""
    parts: dict[str, float] = field(default_factory=dict)
    """Named terms, means over all processes; empty on steps that are not logged."""


@dataclass
class _Gathered:
    """What the micro-batches of a step leave."""

    total: list[Tensor] = field(default_factory=list)
    parts: list[dict[str, Tensor]] = field(default_factory=list)
    uids: list[str] = field(default_factory=list)
    positions: dict[int, Position] = field(default_factory=dict)
    waited: float = 0.0


def on_device(batch: Batch, device: torch.device) -> Batch:
    """Return a batch with its tensors on a device."""
    moved: dict[str, Any] = {
        one.name: value.to(device, non_blocking=True)
        for one in fields(batch)
        if isinstance(value := getattr(batch, one.name), Tensor)
    }
    return replace(batch, **moved)


class Steps:
    """Takes steps."""

    def __init__(self, setup: Setup, batches: Iterator[Batch], on_first: Callable[[Batch], None] | None = None) -> None:
        """Begin with batches in the run's order, behind the last one learned from; on_first is shown the first one."""
        self._setup, self._batches, self._on_first = setup, batches, on_first
        self._slowed = slowed_parameters(setup)

    def take(self, progress: Progress, *, began: float, told: Callable[[], bool], parts: bool) -> Taken:
        """Take a step and write it into the progress.

        Args:
            progress: of the run; changed.
            began: when this call's first step began, time.perf_counter().
            told: whether this process was told to stop, asked late: all hear of it with this step.
            parts: whether the losses' named terms are wanted.

        Raises:
            NoNumberError: a loss or a gradient is no number; the weights are then as before the step.
        """
        setup, start = self._setup, time.perf_counter()
        rate = rate_at(setup.recipe.optimisation, setup.budget, progress.step, progress.seconds)
        _apply(setup.optimizer, rate)
        setup.student.train()
        gathered = self._gradients(progress)
        norm = self._norm()
        loss, spoilt, stopping, clock = self._agreed(gathered, norm, told(), time.perf_counter() - began)
        skipped = self._update(progress, gathered, spoilt)
        progress.step += 1
        progress.samples += setup.shares.batch_size
        progress.learned.update(gathered.positions)
        return Taken(
            loss, rate.learning_rate, norm, time.perf_counter() - start, gathered.waited, skipped, stopping, clock,
            _mean_parts(setup.accelerator, gathered.parts) if parts else {},
        )  # fmt: skip

    def _gradients(self, progress: Progress) -> _Gathered:
        setup, gathered = self._setup, _Gathered()
        share = setup.budget.share(progress.step, progress.seconds)
        for micro in range(setup.shares.accumulated):
            batch = self._next(gathered)
            if self._on_first is not None:
                self._on_first(batch)
                self._on_first = None
            _seed_chance(setup, progress.step, micro)
            with setup.accelerator.accumulate(setup.student):
                losses: Losses = setup.task.loss(setup.student, batch, share=share)
                setup.accelerator.backward(losses.total)
            gathered.total.append(losses.total.detach())
            gathered.parts.append({name: value.detach() for name, value in losses.parts.items()})
            gathered.uids += batch.uids
            gathered.positions.update((position.reader, position) for position in batch.positions)
        return gathered

    def _next(self, gathered: _Gathered) -> Batch:
        began = time.perf_counter()
        batch = next(self._batches, None)
        if batch is None:
            raise TrainingError("the training data came to an end: the loader must be endless; this is a bug")
        gathered.waited += time.perf_counter() - began
        return on_device(batch, self._setup.accelerator.device)

    def _norm(self) -> float:
        """Slow the pretrained parameters' gradients and clip all of them; return their norm."""
        setup = self._setup
        gradients = [parameter.grad for parameter in self._slowed if parameter.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, setup.recipe.optimisation.slowed)
        # Clipping to infinity multiplies by exactly one: the norm is wanted in any case.
        most = setup.recipe.optimisation.clip_norm or math.inf
        norm = setup.accelerator.clip_grad_norm_(setup.student.parameters(), most)
        return math.nan if norm is None else float(norm)

    def _agreed(self, gathered: _Gathered, norm: float, stop: bool, clock: float) -> tuple[float, bool, bool, float]:
        """Return the mean loss of all processes, whether any number is none, whether any should stop, and the time."""
        accelerator, shares = self._setup.accelerator, self._setup.shares
        loss = torch.stack(gathered.total).float().mean()
        spoilt = not math.isfinite(norm) and accelerator.distributed_type != DistributedType.DEEPSPEED
        others = (float(stop), float(spoilt), clock if accelerator.is_main_process else 0.0)
        total, stops, bad, now = accelerator.reduce(torch.cat([loss[None], loss.new_tensor(others)]), "sum").tolist()
        return total / shares.ranks, bad > 0 or not math.isfinite(total), stops > 0, now

    def _update(self, progress: Progress, gathered: _Gathered, spoilt: bool) -> bool:
        """Update the weights and their average; return whether fp16's scaler refused."""
        setup = self._setup
        scaler = setup.accelerator.scaler
        if spoilt and (scaler is None or progress.skipped >= MOST_SKIPPED):
            raise self._no_number(progress, gathered)
        setup.optimizer.step()
        setup.optimizer.zero_grad(set_to_none=True)
        skipped = scaler is not None and bool(setup.accelerator.optimizer_step_was_skipped)
        progress.skipped = progress.skipped + 1 if skipped else 0
        if setup.average is not None and not skipped:
            setup.average.update()
        return skipped

    def _no_number(self, progress: Progress, gathered: _Gathered) -> "NoNumberError":
        """Return the error of a step whose loss or gradient is no number, with the clips that it came from."""
        bad = not all(math.isfinite(float(total)) for total in gathered.total)
        found = gather_object([(bad, gathered.uids)])
        uids = [uid for spoilt, some in found if spoilt for uid in some]
        everyone = [uid for _, some in found for uid in some]
        where = f"the loss of {named(uids)}" if uids else f"the gradient, of {named(everyone)},"
        again = f" {MOST_SKIPPED + 1} times in a row" if progress.skipped else ""
        return NoNumberError(
            f"step {progress.step + 1}: {where} is not a finite number{again}; the weights were left as they are. Look at "
            "these objects; a lower --learning-rate, --clip-norm 1 or --precision bf16 help as a rule"
        )


def slowed_parameters(setup: Setup) -> list[nn.Parameter]:
    """Return the parameters whose gradients are slowed. Raises ValueError for names that the student does not have."""
    names = set(getattr(setup.task, "pretrained_parameters", None) or ())
    if setup.recipe.optimisation.slowed == 1 or not names or setup.settings.lora_rank is not None:
        return []
    if setup.accelerator.distributed_type == DistributedType.DEEPSPEED:
        raise TrainingError(
            f"{setup.recipe.name} slows the pretrained weights' gradients, which DeepSpeed keeps to itself: "
            "take --slowed 1, or FSDP"
        )
    parameters = {plain_name(name): parameter for name, parameter in setup.student.named_parameters()}
    if not names <= set(parameters):
        raise ValueError(f"pretrained parameters that the student does not have: {named(names - set(parameters))}")
    return [parameters[name] for name in sorted(names) if parameters[name].requires_grad]


def _apply(optimizer: torch.optim.Optimizer, rate: Rate) -> None:
    for group in optimizer.param_groups:
        group["lr"], group["betas"] = rate.learning_rate, rate.betas


def _seed_chance(setup: Setup, step: int, micro: int) -> None:
    """Whatever is left to torch's own generator (dropout) depends on the step alone, not on what came before it."""
    torch.manual_seed(seed_from(setup.settings.seed, "step", step, micro, setup.accelerator.process_index))


def _mean_parts(accelerator: Accelerator, parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """Means over all micro-batches of all processes that have the term (pictures have fewer than orbits)."""
    mine = [{name: float(value) for name, value in one.items()} for one in parts]
    everyone: list[dict[str, float]] = gather_object(mine)
    names = dict.fromkeys(name for one in everyone for name in one)
    values = {name: [one[name] for one in everyone if name in one] for name in names}
    return {name: sum(some) / len(some) for name, some in values.items()}
