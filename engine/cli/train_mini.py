"""`turntable train-mini`: the small weights that come with Turntable, trained on from where they are."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.running import check_at_least_one, needing, set_threads, silence_libraries
from engine.cli.train import Keeping, Learning, Shards, Train
from engine.command_line import Answer, Talk, Unset

if TYPE_CHECKING:
    from engine.training.family import Stage
    from engine.training.types import Batch

StageName = Literal[
    "vae",
    "expectation-image",
    "image",
    "expectation-text",
    "text",
    "reconstructor",
    "depth",
    "expectation-hi3d",
    "hi3d-base",
    "hi3d-refiner",
]


@dataclass(frozen=True)
class TrainMini:
    """Train one stage of the bundled small weights for some minutes, and keep what came out if it is better.

    Starts from the weights in the installed tree, learns from DATA/ringXX-train-*.tar, measures on DATA/ringXX-val-*.tar,
    and replaces the tree's weights if the held-out loss fell. A run that was interrupted goes on. Prints what was done.
    """

    stage: Annotated[StageName, tyro.conf.Positional]
    """Which network: in this order where there is nothing yet."""
    data: Path
    """Folder of shards named ORBIT-train-NNN.tar and ORBIT-val-NNN.tar, ORBIT being ring24 or ring16."""
    minutes: float = 25.0
    """Time to train."""
    out: Path = Path("outputs/train-mini")
    """Folder for runs, one a stage; a finished one is replaced by the next."""
    family: Unset[Path] = None
    """Folder of the small weights: the installed ones unless given."""
    workers: int = 1
    """Processes that read and decode."""
    seed: int = 0
    """Of data order and noise; another one each time, or the same pictures come first again."""
    always: bool = False
    """Replace the tree's weights even if the held-out loss did not fall (after its data or recipe changed)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Auto: cuda where there is one."""
    processes: Unset[int] = None
    """Processes that learn together: one on a GPU, one for each CPU thread (at most one for each clip of a step) unless
    given."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """CPU threads, divided among the processes."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Train, compare, and print what became of the weights."""
        check_at_least_one("processes", self.processes)
        check_at_least_one("threads", self.threads)
        set_threads(self.threads)
        with needing("train-mini", "models,train"):
            from engine.cli.processes import spread
            from engine.training.family import (
                STAGES,
                TREE,
                finished,
                is_better,
                latents_are_learned,
                normalise,
                promote,
                start_folder,
            )

        silence_libraries()
        tree = self.family or TREE
        decoder_only = self.stage == "vae" and latents_are_learned(tree)
        stage, run, start = STAGES[self.stage], self.out / self.stage, self.out / f"{self.stage}-start"
        if not (run / "run.json").is_file() or (run / "weights").is_dir():
            self._begin_anew(run)
            start_folder(stage, start, tree)
        processes = self._processes(stage)
        train = self._train(stage, run, tree, start, decoder_only, processes)
        if processes == 1:
            train.perform()
        else:
            spread(train, _silently, processes)
        trained = finished(run, stage.orbit)
        if not self.always and not is_better(self.stage, trained, tree):
            return Answer(f"{self.stage}: held-out loss {trained.measured['loss']:.5f}, not better: the weights stay")
        if self.stage == "vae" and not decoder_only:
            normalise(trained.weights, self._some(stage.recipe, stage.orbit))
        promote(self.stage, trained, tree)
        return Answer(f"{self.stage}: held-out loss {trained.measured['loss']:.5f}, better: the weights are replaced")

    def _processes(self, stage: "Stage") -> int:
        """How many learn together. Processes of one thread learned 1.5 times as much as one of 4 threads (recipe
        videomv-image, mini, a CPU)."""
        from engine.training.loop.processes import on_cpu
        from engine.training.recipes import recipe_named

        if self.processes is not None:
            return self.processes
        clips = recipe_named(stage.recipe, "mini").optimisation.batch_size
        most = min(self.threads, clips) if on_cpu(self.device) else 1
        return next(count for count in range(most, 0, -1) if clips % count == 0)

    def _begin_anew(self, run: Path) -> None:
        """Keep the last finished run beside it, so that nothing is lost."""
        import shutil

        if run.exists():
            before = run.with_name(f"{run.name}-before")
            shutil.rmtree(before, ignore_errors=True)
            run.rename(before)

    def _some(self, recipe: str, orbit: str) -> "Iterable[Batch]":
        """Held-out clips without chance."""
        from engine.training.data.batches import loader
        from engine.training.data.sources import find_shards
        from engine.training.recipes import recipe_named

        shards = find_shards([str(self.data / f"{orbit}-val-*.tar")])
        return loader(recipe_named(recipe, "mini").data, shards, batch_size=4, seed=0, endless=False)

    def _train(self, stage: "Stage", run: Path, tree: Path, start: Path, decoder_only: bool, processes: int) -> Train:
        return Train(
            recipe=stage.recipe,
            out=run,
            shards=Shards(
                data=(str(self.data / f"{stage.orbit}-train-*.tar"),), val=(str(self.data / f"{stage.orbit}-val-*.tar"),),
                workers=self.workers,
            ),
            size="mini",
            weights=start,
            part=tuple(f"{name}={tree / place}" for name, place in stage.parts.items()),
            cache=self.out / "cache" if "vae" in stage.needs else None,
            learning=Learning(minutes=self.minutes, decoder_only=decoder_only),
            keeping=Keeping(checkpoint_every=500, validate_every=500),
            seed=self.seed,
            device=self.device,
            threads=max(1, self.threads // processes),
            talk=self.talk,
        )  # fmt: skip


def _silently(train: Train) -> Answer:
    train.perform()
    return Answer("")
