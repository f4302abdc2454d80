"""Weights out of a run: our layout, `turntable-weights/1`, with averaged weights, merged adapters and a card.

What the run used and did not train, say the VAE, is in the folder too (linked, where it came from a folder of weights), so
that `turntable generate --weights RUN/weights` has all it needs.
"""

import os
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoints.card import CARD, SOURCES, licences_of, read_origin
from engine.checkpoints.layout import WeightsIndex, component_folder, read_index, write_index
from engine.files import write_bytes
from engine.training.loop import state
from engine.training.loop.lora import is_adapted, merged, save_adapters
from engine.training.loop.processes import is_sharded
from engine.training.loop.state import Progress
from engine.training.loop.steps import Setup
from engine.training.loop.validation import averaged
from engine.training.types import Task

WEIGHTS, BEST, ADAPTERS = "weights", "best", "adapters"


@dataclass(frozen=True)
class Exporter:
    """Writes a run's weights."""

    setup: Setup
    run: Path
    origins: Mapping[str, Path]
    """Component -> folder of weights that it came from; see `origins_of`."""
    twin: Task | None
    """A copy of the task on the main process's CPU, where the weights are spread over processes."""

    def write(self, name: str, progress: Progress, measures: Mapping[str, float]) -> None:
        """Write RUN/name, all or nothing; all processes call it."""
        setup, folder = self.setup, self.run / name
        accelerator = setup.accelerator
        with averaged(setup):
            full: dict[str, Tensor] | None = None
            if is_sharded(accelerator):
                full = accelerator.get_state_dict(setup.student)  # a piece of work for all
            if accelerator.is_main_process:
                task = setup.task if full is None else self._filled(full)
                partial = state.partial_of(folder)
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                self._fill(partial, task, progress, measures)
                state.sync_tree(partial)
                state.replace_folder(partial, folder)
        accelerator.wait_for_everyone()

    def _filled(self, full: dict[str, Tensor]) -> Task:
        assert self.twin is not None
        self.twin.student.load_state_dict(full)
        return self.twin

    def _fill(self, folder: Path, task: Task, progress: Progress, measures: Mapping[str, float]) -> None:
        adapted = is_adapted(task.student)
        if adapted:
            save_adapters(task.student, folder / ADAPTERS)
        with merged(task.student) if adapted else nullcontext():
            trained = dict(task.components())
            for name, component in trained.items():
                component.save_pretrained(folder / name)
        index = self._index(task, trained)
        for name in set(index.components) - set(trained):
            if name in self.origins:
                origin = self.origins[name]
                _link(component_folder(origin, read_index(origin), name), folder / name)
            else:
                task.frozen[name].save_pretrained(folder / name)  # type: ignore[operator]  # diffusers' or ours
        for source in dict.fromkeys(self.origins.values()):
            if (source / SOURCES).is_file():
                shutil.copyfile(source / SOURCES, folder / SOURCES)
                break
        write_index(folder, index)
        write_bytes(folder / CARD, self._card(index, trained, progress, measures).encode())

    def _index(self, task: Task, trained: Mapping[str, Any]) -> WeightsIndex:
        """What the task says of itself, and what else the start of the same system had."""
        classes = {name: type(component).__name__ for name, component in trained.items()}
        made = getattr(task, "index", None)
        index: WeightsIndex = made() if made is not None else WeightsIndex(self.setup.recipe.name, classes)
        others: dict[str, str] = {}
        settings = index.settings
        for folder in dict.fromkeys(self.origins.values()):
            start = read_index(folder)
            if start.system == index.system:
                others |= {name: kind for name, kind in start.components.items() if self.origins.get(name) == folder}
                settings = settings or start.settings
        return WeightsIndex(index.system, {**others, **classes, **index.components}, settings)

    def _card(
        self, index: WeightsIndex, trained: Mapping[str, Any], progress: Progress, measures: Mapping[str, float]
    ) -> str:
        recipe, plan = self.setup.recipe, self.setup.recipe.optimisation
        rows = [f"| {name} | {value:.6g} |" for name, value in measures.items()]
        folders = list(dict.fromkeys(self.origins.values()))
        parents = [one for folder in folders for one in licences_of(read_origin(folder))]
        average = f"averaged with decay {plan.ema_decay}" if self.setup.average is not None else "not averaged"
        return "\n".join([
            "---", "library_name: turntable3d", "---", "", f"# {recipe.name} ({recipe.size})", "",
            f"Weights for Turntable ({index.system}), made by `turntable train {recipe.name}`: {recipe.summary}", "",
            f"- trained: {', '.join(trained)}; {average}{', LoRA merged' if self.setup.settings.lora_rank else ''}",
            f"- updates: {progress.step:,} of {self.setup.shares.batch_size} clips ({progress.samples:,} clips), "
            f"{progress.seconds / 3600:.2f} hours on {self.setup.shares.ranks} process(es)",
            f"- clips: {recipe.data.views} views of {recipe.data.orbit} at {recipe.data.size_px} px",
            f"- started from: {', '.join(folder.name for folder in folders) or 'random weights'}",
            *(["", "## Held-out objects", "", "| measure | mean |", "| --- | --- |", *rows] if rows else []),
            *(["", "## Licences of what it was started from", ""] if parents else []),
            *(f"- **{one['name']}**: {one['licence']}, as stated at {one['page']}. {one['note']}" for one in parents),
            "",
        ])  # fmt: skip


def origins_of(weights: Path | None, parts: Mapping[str, Path]) -> dict[str, Path]:
    """Return where each component comes from. Raises CheckpointError for a folder that is none of weights."""
    found = {} if weights is None else dict.fromkeys(read_index(weights).components, weights)
    return {**found, **parts}


def _link(source: Path, target: Path) -> None:
    """Give a folder's files a second name, or copy them to another disk."""

    def one(path: str, to: str) -> None:
        try:
            os.link(Path(path).resolve(), to)
        except OSError:
            shutil.copyfile(path, to)

    shutil.copytree(source, target, copy_function=one)
