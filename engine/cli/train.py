"""`turntable train`: orbit shards become weights."""

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.running import (
    check_at_least_one,
    keep_freed_memory,
    needing,
    progress_bars,
    set_threads,
    silence_libraries,
)
from engine.command_line import Answer, Several, Talk, Unset
from engine.training.plans import RecipeName, Size

if TYPE_CHECKING:
    from engine.training.loop.settings import Feed, LoopSettings
    from engine.training.plans import Recipe
    from engine.training.types import Task

OPTIMISATION = (
    "steps", "batch_size", "learning_rate", "ema_decay", "clip_norm", "slowed", "gradient_checkpointing",
)  # fmt: skip
"""Flags that stand for the recipe's own numbers."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shards:
    """What is learned from: files, folders, patterns as orbits-{000..031}.tar, or URLs, each with a weight as @2.5."""

    data: Several[str] = ()
    """Shards of orbits."""
    val: Several[str] = ()
    """Shards of held-out orbits, to measure on; the best weights on them are kept in RUN/best."""
    pictures: Several[str] = ()
    """Shards of 2D pictures, for videomv-2d-joint."""
    workers: int = 2
    """Processes that read and decode, for each process that learns; 0: it does so itself."""


@dataclass(frozen=True)
class Learning:
    """How the recipe is changed; what is not given is the recipe's own."""

    steps: Unset[int] = None
    """Updates of the whole run."""
    minutes: Unset[float] = None
    """Minutes of the whole run, over all calls, in place of a number of steps; the schedule is stretched over them."""
    batch_size: Unset[int] = None
    """Clips an update, over all processes."""
    micro_batch: Unset[int] = None
    """Clips at a time on each process; smaller ones are accumulated and need less memory."""
    learning_rate: Unset[float] = None
    """At its highest."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """What the network computes in; auto: the recipe's on a GPU, float32 (no) on a CPU."""
    ema_decay: Unset[float] = None
    """Decay of the moving average of the weights; 0 keeps none."""
    clip_norm: Unset[float] = None
    """Largest norm of the gradient; 0 leaves it as it is."""
    slowed: Unset[float] = None
    """Factor on the gradients of layers that Stable Diffusion trained; 1: all learn alike."""
    gradient_checkpointing: Annotated[bool | None, tyro.conf.arg(help_behavior_hint="")] = None
    """True: compute activations twice: a third slower, far less memory."""
    size_px: Unset[int] = None
    """Side of the views."""
    decoder_only: bool = False
    """The autoencoder's decoder alone: denoisers that know its latents stay good."""
    lora: Unset[int] = None
    """Train adapters of this rank beside the attention in place of the weights."""


@dataclass(frozen=True)
class Keeping:
    """How often what is written, in steps."""

    log_every: int = 10
    """Entries of TensorBoard; losses.jsonl holds every step."""
    checkpoint_every: int = 1000
    """Checkpoints; there is one every quarter of an hour in any case."""
    validate_every: int = 1000
    """Validations, with turntables on TensorBoard; there is one at the end in any case."""
    keep: int = 2
    """Checkpoints that are kept."""


@dataclass(frozen=True)
class Train:
    """Train a model of VideoMV or Hi3D, its reconstructor, autoencoder or depth network from orbit shards.

    Prints the run's folder: weights/ is for `turntable generate --weights`, log/ for TensorBoard, losses.jsonl for
    programs. The same command goes on where it stopped: Ctrl-C and SIGTERM finish a step and write a checkpoint, and a
    run that was killed goes on from its last one. Several GPUs: --processes 8; several machines: torchrun, or `accelerate
    launch -m engine.cli train ...` with its FSDP or DeepSpeed; SLURM: see docs/training.md. For example:
    turntable train videomv-image --data orbits/train --val orbits/val --weights weights/i2vgen --out runs/image
    """

    recipe: Annotated[RecipeName, tyro.conf.Positional]
    """What is trained."""
    out: Path
    """The run's folder."""
    shards: Flags[Shards] = field(default_factory=Shards)
    """What is learned from."""
    size: Size = "full"
    """full as published, mini as it ships with the project, tiny for tests."""
    weights: Unset[Path] = None
    """Folder of weights to start from: of `turntable convert`, or RUN/weights of another run."""
    part: Several[str] = ()
    """NAME=FOLDER: take one component, such as vae, from another folder of weights."""
    perceptual: Unset[Path] = None
    """File of VGG-16's weights for the perceptual loss (LPIPS); without it that term is left out."""
    cache: Unset[Path] = None
    """Folder for latents that come again; on a fast disk."""
    learning: Flags[Learning] = field(default_factory=Learning)
    """How the recipe is changed."""
    keeping: Flags[Keeping] = field(default_factory=Keeping)
    """How often what is written."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the folder's newest checkpoint where there is one, refuse to, or insist."""
    seed: int = 0
    """Of data order, noise and fresh weights."""
    fresh: bool = False
    """Start from random numbers even where the recipe wants pretrained weights: to measure speed and memory."""
    dry_run: bool = False
    """Print parameters, memory, arithmetic and, with --data, the time of a step; write nothing."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Auto: cuda where there is one."""
    processes: int = 1
    """Processes of this machine that learn together, a GPU or some threads of the CPU each, as torchrun starts them. On a
    CPU, several of one thread learn faster than one of several."""
    threads: Unset[int] = None
    """CPU threads of each process: all of them unless given, divided among the machine's processes."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Train, and print the run's folder; or estimate, and print that."""
        check_at_least_one("processes", self.processes)
        check_at_least_one("threads", self.threads)
        threads = self.threads or max(1, (os.cpu_count() or 1) // _local_processes(self.processes))
        set_threads(threads)
        if self.processes > 1 and not _is_spread():
            with needing("train", "models,train"):
                from engine.cli.processes import spread
            spread(self, Train.perform, self.processes)
            return Answer("")
        with needing("train", "models,train"):
            import torch

            from engine.training.loop.export import origins_of
            from engine.training.loop.processes import on_cpu
            from engine.training.loop.run import train
        torch.set_num_threads(threads)
        if on_cpu(self.device):
            keep_freed_memory()
        silence_libraries()
        if not _is_first():
            logging.getLogger().setLevel(logging.ERROR)
        recipe, settings = self._recipe(), self._settings()
        if self.dry_run:
            return _said_once(self._estimate(recipe, settings))
        feed = self._feed(recipe, settings)
        with progress_bars(self.talk.quiet) as progress:
            train(
                self._task(recipe), feed, recipe, self.out, settings, asked=self._asked(), on_progress=progress,
                origins=origins_of(self.weights, self._parts()),
            )  # fmt: skip
        return _said_once(str(self.out))

    def _recipe(self) -> "Recipe":
        """The recipe with what was changed. Raises ValueError for changes that exclude each other."""
        from engine.training.recipes import recipe_named
        from engine.training.tasks.settings import VaeTask

        recipe, learning = recipe_named(self.recipe, self.size), self.learning
        if learning.steps is not None and learning.minutes is not None:
            raise ValueError("--steps and --minutes: give one of them")
        if learning.steps is not None and learning.steps < 1:
            raise ValueError(f"--steps must be at least 1, got {learning.steps}")
        given: dict[str, Any] = {
            name: getattr(learning, name) for name in OPTIMISATION if getattr(learning, name) is not None
        }
        for name in ("ema_decay", "clip_norm"):  # 0 stands for none
            if name in given:
                given[name] = given[name] or None
        data = recipe.data if learning.size_px is None else replace(recipe.data, size_px=learning.size_px)
        if learning.decoder_only:
            if not isinstance(recipe.task, VaeTask):
                raise ValueError(f"--decoder-only is for vae, got {recipe.name}: leave it out")
            recipe = replace(recipe, task=replace(recipe.task, learns="decoder"))
        return replace(recipe, data=data, optimisation=replace(recipe.optimisation, **given))

    def _settings(self) -> "LoopSettings":
        from engine.training.loop.settings import LoopSettings

        learning, keeping = self.learning, self.keeping
        return LoopSettings(
            seed=self.seed, minutes=learning.minutes, micro_batch=learning.micro_batch, precision=learning.precision,
            lora_rank=learning.lora, log_every=keeping.log_every, checkpoint_every=keeping.checkpoint_every,
            keep=keeping.keep, validate_every=keeping.validate_every, resume=self.resume, device=self.device,
        )  # fmt: skip

    def _task(self, recipe: "Recipe", *, fresh: bool | None = None) -> "Task":
        from engine.training.tasks.build import make_task

        return make_task(
            recipe, weights=self.weights, parts=self._parts(),
            cache=self.cache, perceptual=self.perceptual, fresh=self.fresh if fresh is None else fresh, seed=self.seed,
        )  # fmt: skip

    def _parts(self) -> dict[str, Path]:
        parts = dict(one.split("=", 1) for one in self.part if "=" in one)
        if len(parts) != len(self.part):
            raise ValueError(f"--part must be NAME=FOLDER, got {' '.join(self.part)}")
        return {name: Path(folder) for name, folder in parts.items()}

    def _feed(self, recipe: "Recipe", settings: "LoopSettings") -> "Feed":
        """Loaders of the shards that were given. Raises ValueError without --data, TrainingError for missing shards."""
        if not self.shards.data:
            raise ValueError("--data: say which shards to learn from")
        from engine.training.loop.feeding import feed_from

        shards = self.shards
        return feed_from(
            recipe.data, shards.data, shards.val, shards.pictures, seed=settings.seed, workers=shards.workers
        )  # fmt: skip

    def _estimate(self, recipe: "Recipe", settings: "LoopSettings") -> str:
        from engine.training.loop.estimate import estimate, told

        feed = self._feed(recipe, settings) if self.shards.data else None
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        return told(estimate(lambda: self._task(recipe, fresh=True), recipe, settings, feed, processes))

    def _asked(self) -> dict[str, Any]:
        shards = self.shards
        return {
            "data": list(shards.data), "val": list(shards.val), "pictures": list(shards.pictures),
            "weights": None if self.weights is None else str(self.weights), "parts": list(self.part),
        }  # fmt: skip


def _is_spread() -> bool:
    """Whether something started this process as one of several, or of one."""
    return "RANK" in os.environ


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _local_processes(asked: int) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(asked)))


def _said_once(text: str) -> Answer:
    return Answer(text if _is_first() else "")
