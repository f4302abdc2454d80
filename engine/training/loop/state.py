"""The folder of a run, and its checkpoints: whole or not there at all, and never those of another run.

    RUN/run.json                     what was asked, with which code and versions
    RUN/checkpoints/step-00001000/   accelerate's state, ema-00000.safetensors, progress.json
    RUN/best/, RUN/weights/          weights in our layout: best on held-out objects, last
    RUN/losses.jsonl, RUN/log/       the journal

A checkpoint is written into a folder with a name that nobody reads, every file and the folder are brought to the disk,
and then it gets its name: a run that is killed at any moment goes on from a whole one.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import TrainingError
from engine.files import write_bytes
from engine.files.atomic import PARTIAL_SUFFIX, sync_folder
from engine.training.types import Position

log = logging.getLogger(__name__)

CHECKPOINTS, PROGRESS, RUN = "checkpoints", "progress.json", "run.json"
FORMAT = "turntable-run/1"
PREFIX = "step-"
REPLACED_SUFFIX = ".replaced"
BINDING = {
    "recipe": "the recipe", "size": "its size", "data": "the data plan", "seed": "--seed", "lora_rank": "--lora",
    "ema": "whether --ema-decay keeps an average", "scaled": "whether --precision is fp16",
    "parameters": "the network's parameters",
}  # fmt: skip
"""What a checkpoint must share with the run that takes it up."""


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """Updates that were made."""
    seconds: float = 0.0
    """Of training, over all calls."""
    samples: int = 0
    """Clips learned from."""
    skipped: int = 0
    """Updates in a row that fp16's scaler refused."""
    positions: dict[int, Position] = field(default_factory=dict)
    """Last position learned from, by reader, as of the checkpoint that this call began with."""
    learned: dict[int, Position] = field(default_factory=dict)
    """The same, of this call and this process's readers."""
    best: float | None = None
    """Lowest held-out loss."""
    best_step: int = 0
    """When that was."""

    def to_json(self, learned: Mapping[int, Position]) -> dict[str, Any]:
        """Return what progress.json holds, with what all processes' readers learned from in this call."""
        plain = {name: value for name, value in vars(self).items() if name not in ("positions", "learned")}
        # Positions of readers that are no more (other processes, other workers) say nothing to those that are.
        kinds = {(position.ranks, position.workers) for position in learned.values()}
        old = {reader: p for reader, p in self.positions.items() if not kinds or (p.ranks, p.workers) in kinds}
        return {**plain, "positions": [asdict(position) for position in {**old, **learned}.values()]}

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> "Progress":
        """Return what `to_json` wrote."""
        positions = [Position(**one) for one in content["positions"]]
        return Progress(**{**content, "positions": {position.reader: position for position in positions}})


def checkpoint_path(run: Path, step: int) -> Path:
    """Return where the checkpoint of a step is."""
    return run / CHECKPOINTS / f"{PREFIX}{step:08d}"


def checkpoints(run: Path) -> list[Path]:
    """Return a run's whole checkpoints, oldest first."""
    return sorted(
        path
        for path in (run / CHECKPOINTS).glob(f"{PREFIX}*")
        if path.name.removeprefix(PREFIX).isdigit() and (path / PROGRESS).is_file()
    )


def step_of(checkpoint: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(checkpoint.name.removeprefix(PREFIX))


def write_progress(
    folder: Path, progress: Progress, learned: Mapping[int, Position], identity: Mapping[str, Any], ranks: int
) -> None:
    """Write progress.json, the last file of a checkpoint."""
    content = {"format": FORMAT, "identity": dict(identity), "ranks": ranks, "progress": progress.to_json(learned)}
    write_bytes(folder / PROGRESS, (json.dumps(content, indent=1) + "\n").encode())


def read_progress(checkpoint: Path, identity: Mapping[str, Any]) -> tuple[Progress, int]:
    """Return a checkpoint's progress and its number of processes.

    Raises TrainingError, naming what differs, if the checkpoint is of another recipe, size, data plan, seed or network.
    """
    content = json.loads((checkpoint / PROGRESS).read_text())
    if content.get("format") != FORMAT:
        found = content.get("format")
        raise TrainingError(f'{checkpoint}: expected format "{FORMAT}", found {found}; take another --out')
    check_identity(checkpoint, content["identity"], identity)
    return Progress.from_json(content["progress"]), int(content["ranks"])


def check_identity(place: Path, found: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raise TrainingError if a checkpoint's run and the one asked for are not the same."""
    asked = json.loads(json.dumps(dict(asked)))  # tuples become lists, as they are in the file
    for key, words in BINDING.items():
        was, now = found.get(key), asked.get(key)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            name = next(name for name in [*was, *now] if was.get(name) != now.get(name))
            words, was, now = f"{words} ({name})", was.get(name), now.get(name)
        raise TrainingError(
            f"{place}: is a checkpoint of another run: {words} was {was}, asked for is {now}; ask for the same, or take "
            "another --out (and --weights to start from the weights of this run)"
        )


def sync_tree(folder: Path) -> None:
    """Bring a folder with all its files to the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            sync_folder(path)
    sync_folder(folder)


def partial_of(folder: Path) -> Path:
    """Return the name under which a folder is written."""
    return folder.with_name(f".{folder.name}{PARTIAL_SUFFIX}")


def replace_folder(partial: Path, folder: Path) -> None:
    """Give a folder that is on the disk its name, in place of an older one of that name."""
    old = folder.with_name(f".{folder.name}{REPLACED_SUFFIX}")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def sweep(run: Path) -> None:
    """Remove what a killed run left behind; bring back what it was just about to replace."""
    for place in (run, run / CHECKPOINTS):
        for old in place.glob(f".*{REPLACED_SUFFIX}"):
            real = old.with_name(old.name.removeprefix(".").removesuffix(REPLACED_SUFFIX))
            if real.exists():
                shutil.rmtree(old)
            else:
                old.rename(real)
        for partial in place.glob(f".*{PARTIAL_SUFFIX}"):
            shutil.rmtree(partial)


def forget_old(run: Path, keep: int) -> None:
    """Remove all but the newest checkpoints."""
    for checkpoint in checkpoints(run)[:-keep]:
        # Renamed first: a removal that is interrupted must not leave half a checkpoint under a good name.
        doomed = partial_of(checkpoint)
        checkpoint.rename(doomed)
        shutil.rmtree(doomed)
