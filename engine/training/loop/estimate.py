"""`--dry-run`: what a run would hold and take, before it is begun.

    task on meta (or small, on the CPU) --> bytes, FLOP       data --> one measured step --> seconds

Nothing is written.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from engine.training.loop.lora import add_adapters
from engine.training.loop.memory import compute_twice
from engine.training.loop.meta import StepCost, cost_of_step, on_meta
from engine.training.loop.processes import deal, precision_of
from engine.training.loop.run import prepare
from engine.training.loop.settings import Feed, LoopSettings, Reader, close
from engine.training.loop.speed import BACKWARD, device_peak
from engine.training.loop.state import Progress
from engine.training.loop.steps import Setup, Steps
from engine.training.plans import Recipe
from engine.training.types import Task

log = logging.getLogger(__name__)

FLOAT32 = 4
ADAM_FLOATS = 2
"""Adam keeps two numbers a parameter."""
SMALL = 200_000_000
"""Parameters up to which a step is tried on the CPU where meta does not do."""
GIB = 2**30


@dataclass(frozen=True)
class Estimate:
    """What a run would hold and take, on each process."""

    recipe: str
    trained_parameters: int
    other_parameters: int
    """Of the student's frozen weights and the frozen networks."""
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    average_bytes: int
    activation_bytes: int | None
    """Of a micro-batch; None where it was not found."""
    activations_from: str
    """How they were found."""
    forward_flop: int | None
    """Of the student, a clip."""
    steps: int | None
    """None with a time budget."""
    batch_size: int
    micro_batch: int
    processes: int
    step_seconds: float | None = None
    """Of one measured step; None without data."""
    step_peak_bytes: int | None = None
    """Most that the CUDA device held in it."""
    mfu: float | None = None
    """Share of the device's peak in it."""

    @property
    def bytes(self) -> int | None:
        """All that one process's device holds."""
        if self.activation_bytes is None:
            return None
        kept = self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.average_bytes
        return kept + self.activation_bytes

    def to_json(self) -> str:
        """Return it as JSON."""
        return json.dumps({**asdict(self), "bytes": self.bytes}, indent=1)


def estimate(
    make: Callable[[], Task], recipe: Recipe, settings: LoopSettings, feed: Feed | None = None, processes: int = 1
) -> Estimate:
    """Estimate a run.

    Args:
        make: makes the task with random weights; called once under the meta device, and again to measure.
        recipe: with all overrides in it.
        settings: how the run is cut.
        feed: data to measure a step with; None: nothing is measured.
        processes: that will share a step's clips.
    """
    plan = recipe.optimisation
    shares = deal(plan.batch_size, settings.micro_batch, processes)
    precision = precision_of(settings, plan)
    task, cost, how = _cost(make, recipe, settings, shares.micro_batch, precision)
    trained = sum(p.numel() for p in task.student.parameters() if p.requires_grad)
    weights = sum(_bytes(network) for network in (task.student, *task.frozen.values()))
    everything = sum(p.numel() for network in (task.student, *task.frozen.values()) for p in network.parameters())
    made = Estimate(
        f"{recipe.name} ({recipe.size})", trained, everything - trained, weights, FLOAT32 * trained,
        ADAM_FLOATS * FLOAT32 * trained, FLOAT32 * trained if plan.ema_decay is not None else 0,
        cost.activation_bytes if cost else None, how, cost.forward_flop // shares.micro_batch if cost else None,
        None if settings.minutes else plan.steps, plan.batch_size, shares.micro_batch, processes,
    )  # fmt: skip
    return made if feed is None else _measured(made, make(), recipe, settings, feed)


def _bytes(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _cost(
    make: Callable[[], Task], recipe: Recipe, settings: LoopSettings, clips: int, precision: str
) -> tuple[Task, StepCost | None, str]:
    """Return the task, what a micro-batch of it costs, and how that was found."""
    try:
        task = on_meta(make)
        with torch.device("meta"):
            _adapt(task, recipe, settings)
        words = f"a micro-batch of {clips} on the meta device, {'float32' if precision == 'no' else '16 bits'}"
        return task, cost_of_step(task, recipe.data, clips, precision), words
    except (RuntimeError, TypeError, ValueError) as error:  # it wants numbers, or cannot be built so
        log.debug("not on the meta device: %s", error)
        reason = str(error).splitlines()[0][:100]
    task = make()
    _adapt(task, recipe, settings)
    if sum(parameter.numel() for parameter in task.student.parameters()) > SMALL:
        return task, None, f"not found: {recipe.name} does not run on the meta device ({reason})"
    one = cost_of_step(task, recipe.data, 1, "no")
    cost = StepCost(one.activation_bytes * clips, one.forward_flop * clips)
    return task, cost, f"one clip on the CPU in float32, times the micro-batch of {clips}"


def _adapt(task: Task, recipe: Recipe, settings: LoopSettings) -> None:
    compute_twice(task.student, recipe.optimisation)
    if settings.lora_rank is not None:
        add_adapters(task, settings.lora_rank, settings.seed)


def _measured(made: Estimate, task: Task, recipe: Recipe, settings: LoopSettings, feed: Feed) -> Estimate:
    """Take two steps, and add what the second one took."""
    setup, _ = prepare(task, recipe, settings)
    cuda = setup.accelerator.device.type == "cuda"
    reader = Reader(setup.shares.micro_batch, setup.accelerator.process_index, setup.accelerator.num_processes)
    batches = iter(feed.train(reader))
    steps, progress, began = Steps(setup, batches), Progress(), time.perf_counter()
    try:
        for _ in range(2):  # the first one warms up: kernels, caches, workers
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            taken = steps.take(progress, began=began, told=lambda: False, parts=False)
    finally:
        close(batches)
    values = asdict(made) | {"step_seconds": taken.seconds}
    if cuda:
        values["step_peak_bytes"] = torch.cuda.max_memory_allocated()
    values["mfu"] = _share_of_peak(made, setup, taken.seconds)
    return Estimate(**values)


def _share_of_peak(made: Estimate, setup: Setup, seconds: float) -> float | None:
    peak = device_peak(setup.accelerator.device, setup.accelerator.mixed_precision)
    if peak is None or made.forward_flop is None:
        return None
    return BACKWARD * made.forward_flop * setup.shares.batch_size / setup.shares.ranks / seconds / peak


def told(made: Estimate) -> str:
    """Return an estimate in words."""
    adds = "" if made.bytes is None else f" = {made.bytes / GIB:.2f} GiB"
    activations = "?" if made.activation_bytes is None else f"{made.activation_bytes / GIB:.2f}"
    flop = "unknown" if made.forward_flop is None else f"{BACKWARD * made.forward_flop / 1e12:.3f} TFLOP"
    lines = [
        made.recipe,
        f"  parameters   {made.trained_parameters / 1e6:.2f} M trained, {made.other_parameters / 1e6:.2f} M frozen",
        f"  memory, GiB  weights {made.weight_bytes / GIB:.2f} + gradients {made.gradient_bytes / GIB:.2f} + AdamW "
        f"{made.optimizer_bytes / GIB:.2f} + average {made.average_bytes / GIB:.2f} + activations {activations}{adds}",
        f"               activations: {made.activations_from}",
        f"  arithmetic   {flop} a clip, forward and backward, of the trained network",
        f"  a step       {made.batch_size} clips on {made.processes} process(es), {made.micro_batch} at a time",
    ]
    if made.steps is not None:
        lines.append(f"  the run      {made.steps:,} steps, {made.steps * made.batch_size:,} clips")
    if made.step_seconds is not None:
        whole = "" if made.steps is None else f", {made.steps * made.step_seconds / 3600:.2f} hours for the run"
        peak = "" if made.step_peak_bytes is None else f", peak {made.step_peak_bytes / GIB:.2f} GiB"
        used = "" if made.mfu is None else f", MFU {made.mfu:.1%}"
        lines.append(f"  measured     {made.step_seconds:.2f} s a step{whole}{peak}{used}")
    else:
        lines.append("  time         give --data to measure a step")
    return "\n".join(lines)
