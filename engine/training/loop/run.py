"""A whole run: prepare, resume, learn, validate, keep, and hand out weights.

    task --(adapters)--> accelerate --> [checkpoint] --> steps ... steps --> RUN/weights, RUN/best
                                             ^              |
                                             +-- every so often, and when told to stop

What is in the run's folder: see `engine.training.loop.state`.
"""

import copy
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from engine.errors import TrainingError
from engine.files.atomic import sync_folder
from engine.results import locked
from engine.training.data.reading import counted, tell_counts
from engine.training.loop import state
from engine.training.loop.checkpoint import identity_of, keep_adapters_alone, load_checkpoint, save_checkpoint
from engine.training.loop.ema import MovingAverage
from engine.training.loop.export import BEST, WEIGHTS, Exporter
from engine.training.loop.journal import Journal
from engine.training.loop.lora import add_adapters
from engine.training.loop.memory import compute_twice, memory_explained
from engine.training.loop.names import network_key
from engine.training.loop.processes import is_sharded, join, leave
from engine.training.loop.record import write_record
from engine.training.loop.schedule import Budget
from engine.training.loop.settings import Feed, LoopSettings, Reader, close
from engine.training.loop.speed import Speed, count_forward, device_peak
from engine.training.loop.state import Progress
from engine.training.loop.steps import NoNumberError, Setup, Steps, Taken
from engine.training.loop.stopping import Stop, listening
from engine.training.loop.validation import validate
from engine.training.plans import Optimisation, Recipe
from engine.training.types import Batch, Task, seed_from

log = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, str], None]
"""Stage, done, of all, words."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    steps: int
    """Updates over all calls."""
    samples: int
    """Clips learned from."""
    loss: float | None
    """Of the last step of this call; None if there was none."""
    best: float | None
    """Lowest held-out loss."""
    weights: Path
    """Folder of the last weights."""


def train(
    task: Task,
    feed: Feed,
    recipe: Recipe,
    run: Path,
    settings: LoopSettings = LoopSettings(),  # noqa: B008  # frozen
    *,
    origins: Mapping[str, Path] | None = None,
    asked: Mapping[str, Any] | None = None,
    on_progress: OnProgress | None = None,
) -> Outcome:
    """Train a task by its recipe into a run's folder; go on where it stopped.

    All processes of a launcher call it alike.

    Args:
        task: what learns.
        feed: what it learns from.
        recipe: with all overrides in it.
        run: the folder; see `engine.training.loop.state`.
        settings: how the run is cut, logged and kept.
        origins: component -> folder of weights that it came from (`export.origins_of`): handed on if it is not trained.
        asked: what else run.json should hold: shards, the command line.
        on_progress: told after every step.

    Raises:
        TrainingError: the folder holds another run, memory is not enough, losses are no numbers, data are missing.
        KeyboardInterrupt: it was told to stop; a checkpoint is written.
    """
    with listening() as stop:
        setup, twin = prepare(task, recipe, settings)
        try:
            return _Run(setup, feed, run, Exporter(setup, run, origins or {}, twin), stop, on_progress).go(asked or {})
        finally:
            with suppress(RuntimeError):  # the others may have gone already
                leave(setup.accelerator)


def prepare(task: Task, recipe: Recipe, settings: LoopSettings) -> tuple[Setup, Task | None]:
    """Join the processes and put the task on the device; return also a copy of it where the weights are spread."""
    torch.manual_seed(seed_from(settings.seed, "run"))
    plan = recipe.optimisation
    accelerator, shares = join(task, settings, plan)
    compute_twice(task.student, plan)
    if settings.lora_rank is not None:
        add_adapters(task, settings.lora_rank, settings.seed)
    for network in task.frozen.values():
        network.requires_grad_(False).eval().to(accelerator.device)
    twin = _twin(task) if is_sharded(accelerator) and accelerator.is_main_process else None
    optimizer = _optimizer(task, plan, accelerator.device)
    key = network_key(task.student)
    student, optimizer = accelerator.prepare(task.student, optimizer)
    average = _average(accelerator, student, plan)
    budget = Budget(plan.steps, None if settings.minutes is None else settings.minutes * 60)
    setup = Setup(task, recipe, settings, budget, accelerator, shares, student, optimizer, average, key)
    keep_adapters_alone(setup)
    return setup, twin


def _twin(task: Task) -> Task:
    """A copy of the task on the CPU, for the whole weights of a run that spreads them; frozen networks are shared."""
    return copy.deepcopy(task, {id(network): network for network in task.frozen.values()})


def _optimizer(task: Task, plan: Optimisation, device: torch.device) -> torch.optim.Optimizer:
    trained = [parameter for parameter in task.student.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trained, lr=plan.learning_rate, betas=plan.betas, weight_decay=plan.weight_decay, fused=device.type == "cuda"
    )


def _average(accelerator: Accelerator, student: torch.nn.Module, plan: Optimisation) -> MovingAverage | None:
    if plan.ema_decay is None:
        return None
    if accelerator.distributed_type == DistributedType.DEEPSPEED and accelerator.deepspeed_plugin.zero_stage == 3:
        raise TrainingError("--ema-decay: DeepSpeed's stage 3 gives no process the weights to average: take --ema-decay 0, "
                            "stage 2, or FSDP")  # fmt: skip
    return MovingAverage(student, plan.ema_decay)


class _Run:
    """One call's part of a run."""

    def __init__(
        self, setup: Setup, feed: Feed, run: Path, exporter: Exporter, stop: Stop, on_progress: OnProgress | None
    ) -> None:
        self._setup, self._feed, self._run, self._exporter = setup, feed, run, exporter
        self._stop, self._on_progress = stop, on_progress
        self._identity = identity_of(setup)
        self._measured: dict[str, float] = {}
        self._stored: Path | None = None
        self._stored_at = 0.0  # on this call's clock
        self._last: Taken | None = None

    def go(self, asked: Mapping[str, Any]) -> Outcome:
        """Learn until the budget is spent."""
        main = self._setup.accelerator.is_main_process
        if main:
            self._run.mkdir(parents=True, exist_ok=True)
        with locked(self._run) if main else nullcontext():
            return self._go(asked)

    def _go(self, asked: Mapping[str, Any]) -> Outcome:
        setup, progress = self._setup, self._begin(asked)
        journal = Journal(self._run, progress.step, writes=setup.accelerator.is_main_process)
        try:
            if not setup.budget.over(progress.step, progress.seconds):
                self._learn(progress, journal)
                self._end(progress, journal)
            elif not (self._run / WEIGHTS).is_dir():  # killed between its last checkpoint and its weights
                self._exporter.write(WEIGHTS, progress, {})
        finally:
            journal.close()
        loss = self._last.loss if self._last is not None else None
        return Outcome(progress.step, progress.samples, loss, progress.best, self._run / WEIGHTS)

    def _begin(self, asked: Mapping[str, Any]) -> Progress:
        """Look at the folder, and take up its newest checkpoint."""
        accelerator, wanted = self._setup.accelerator, self._setup.settings.resume
        if accelerator.is_main_process:
            state.sweep(self._run)
        accelerator.wait_for_everyone()
        found = state.checkpoints(self._run)
        if found and wanted == "never":
            raise TrainingError(f"{self._run}: holds a run of {state.step_of(found[-1])} steps: take --resume auto to go on, "
                                "or another --out")  # fmt: skip
        if not found and wanted == "must":
            raise TrainingError(f"{self._run}: holds no checkpoint to go on from; start with --resume auto")
        if found:
            self._stored = found[-1]
        progress = load_checkpoint(self._setup, found[-1], self._identity) if found else Progress()
        if accelerator.is_main_process:
            write_record(self._run, self._setup, self._identity, asked, progress.step)
            sync_folder(self._run)
        return progress

    def _learn(self, progress: Progress, journal: Journal) -> None:
        setup, settings = self._setup, self._setup.settings
        precision = setup.accelerator.mixed_precision
        speed = Speed(device_peak(setup.accelerator.device, precision))
        loader = self._loader(progress)
        batches = iter(loader)
        steps = Steps(setup, batches, on_first=lambda batch: self._count(speed, batch))
        before, began = progress.seconds, time.perf_counter()
        try:
            with memory_explained(setup.recipe, setup.shares, precision, setup.accelerator.device):
                while not setup.budget.over(progress.step, progress.seconds):
                    taken = self._take(steps, progress, began, (progress.step + 1) % settings.log_every == 0)
                    progress.seconds = before + taken.clock
                    self._write_down(progress, taken, speed, journal, counted(loader))
                    self._in_between(progress, taken, journal)
        finally:
            close(batches)
            tell_counts(loader)

    def _take(self, steps: Steps, progress: Progress, began: float, parts: bool) -> Taken:
        try:
            self._last = steps.take(progress, began=began, told=lambda: self._stop.told > 0, parts=parts)
        except NoNumberError as error:
            good = self._stored or "none was written yet"
            raise TrainingError(f"{error}. Last good checkpoint: {good}") from None
        return self._last

    def _in_between(self, progress: Progress, taken: Taken, journal: Journal) -> None:
        """Validate and store where it is time; stop where it was asked for."""
        settings = self._setup.settings
        if self._setup.budget.over(progress.step, progress.seconds):
            return  # both are done at the end
        if progress.step % settings.validate_every == 0 and not taken.stop:
            self._validate(progress, journal)
        waited = taken.clock - self._stored_at >= settings.checkpoint_minutes * 60
        if taken.stop or waited or progress.step % settings.checkpoint_every == 0:
            self._store(progress, journal, taken.clock)
        if taken.stop:
            log.warning("stopped after step %d; the checkpoint is %s", progress.step, self._stored)
            raise KeyboardInterrupt

    def _end(self, progress: Progress, journal: Journal) -> None:
        self._validate(progress, journal)
        self._store(progress, journal, 0.0)
        self._exporter.write(WEIGHTS, progress, self._measured)

    def _loader(self, progress: Progress) -> Iterable[Batch]:
        accelerator = self._setup.accelerator
        return self._feed.train(Reader(
            self._setup.shares.micro_batch, accelerator.process_index, accelerator.num_processes, progress.positions,
        ))  # fmt: skip

    def _count(self, speed: Speed, batch: Batch) -> None:
        """Count what a step's arithmetic is, where there is a peak to compare it with."""
        setup = self._setup
        if speed.peak is not None and not is_sharded(setup.accelerator):
            bare = setup.accelerator.unwrap_model(setup.student)
            once = count_forward(bare, lambda student: setup.task.loss(student, batch, share=0.0))
            speed.forward_flop = once * setup.shares.accumulated

    def _write_down(
        self, progress: Progress, taken: Taken, speed: Speed, journal: Journal, data: Mapping[str, float]
    ) -> None:
        speed.add(taken)
        said: dict[str, Any] = {"skipped": True} if taken.skipped else {}
        journal.step(progress.step, {
            "loss": taken.loss, **taken.parts, "learning_rate": taken.rate, "gradient_norm": taken.norm,
            "seconds": round(taken.seconds, 4), **said,
        })  # fmt: skip
        if progress.step % self._setup.settings.log_every == 0:
            curves = {"loss": taken.loss, "learning_rate": taken.rate, "gradient_norm": taken.norm}
            parts = {f"losses/{name}": value for name, value in taken.parts.items()}
            journal.scalars(progress.step, {**curves, **parts, **speed.told(self._setup.shares.batch_size), **data})
        if self._on_progress is not None and self._setup.accelerator.is_main_process:
            budget = self._setup.budget
            done, of = (progress.step, budget.steps) if budget.seconds is None else (progress.seconds, budget.seconds)
            self._on_progress("train", int(done), int(of), f"loss {taken.loss:.4g}")

    def _validate(self, progress: Progress, journal: Journal) -> None:
        """Measure on held-out objects; keep the weights if they are the best so far."""
        if self._feed.held_out is None:
            return
        self._measured, shown = validate(self._setup, self._feed)
        journal.measures(progress.step, self._measured)
        journal.turntables(progress.step, shown)
        loss = self._measured["loss"]
        if progress.best is None or loss < progress.best:
            progress.best, progress.best_step = loss, progress.step
            self._exporter.write(BEST, progress, self._measured)

    def _store(self, progress: Progress, journal: Journal, clock: float) -> None:
        journal.sync()  # before the checkpoint: a line may be there twice as long as it is not, and is then cut back
        self._stored = save_checkpoint(self._setup, self._run, progress, self._identity)
        self._stored_at = clock
