"""Render one object of a run again and compare: are its cameras the same to the last byte, how far are its pixels?"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from engine.files import OrbitImages, find_orbit, read_orbit
from render_farm.blender import WORKER
from render_farm.errors import RunError
from render_farm.records import Task
from render_farm.render import Progress, render_asset
from render_farm.run.folder import Run
from render_farm.shards import Receipt, list_receipts, open_output, read_receipt, read_sample
from render_farm.spec import Execution


@dataclass(frozen=True)
class Likeness:
    """One orbit, rendered again, beside the stored one."""

    same_cameras: bool
    """Byte for byte."""
    same_light: bool
    """As recorded."""
    psnr_db: float
    """Of all views over mid grey, 8 bit; infinite where no pixel differs."""


@dataclass(frozen=True)
class Replay:
    """What a replay gave."""

    paths: tuple[Path, ...]
    """The new orbits."""
    likeness: Mapping[str, Likeness]
    """By orbit; empty where the run has no orbits of the object."""


def find_task(run: Run, uid: str) -> Task:
    """Return an object's newest task. Raises RunError if the run does not have it."""
    found = run.newest_tasks([uid]).get(uid)
    if found is None:
        raise RunError(f"{run.folder}: this run has no object {uid!r}; `failures` and the manifest list the uids")
    return found


def replay(
    run: Run, uid: str, out: Path, *, execution: Execution | None = None, worker: tuple[str, ...] = WORKER,
    progress: Progress | None = None,
) -> Replay:  # fmt: skip
    """Render one object again with the run's spec and filters.

    Args:
        run: the run.
        uid: the object.
        out: folder for its orbits.
        execution: how.
        worker: command of the Blender child.
        progress: is told each finished view.

    Raises:
        RunError: the run does not have it, or its file has changed since.
        FarmError: it fails again, with its reason.
    """
    task = find_task(run, uid)
    report = render_asset(
        Path(task.path), out, run.spec, execution=execution, uid=task.uid, provenance=task.provenance, filters=run.filters,
        progress=progress, worker=worker,
    )  # fmt: skip
    again = {images.orbit.name: images for images in (read_orbit(find_orbit(path)) for path in report.paths)}
    sha256 = next(iter(again.values())).renderer["asset_sha256"]
    if sha256 != task.sha256:
        raise RunError(f"{task.path} is not the file that the run rendered (its sha256 is {sha256}, was {task.sha256}): the "
                       f"orbits in {out} are of the new one")  # fmt: skip
    stored = {images.orbit.name: images for images in _stored(run, task)}
    return Replay(report.paths, {name: compare(stored[name], again[name]) for name in again if name in stored})


def compare(stored: OrbitImages, again: OrbitImages) -> Likeness:
    """Compare two renderings of the same orbit."""
    difference = over_grey(stored.rgba).astype(np.float64) - over_grey(again.rgba)
    error = float(np.mean(difference**2))
    return Likeness(
        stored.orbit.T_world_camera.tobytes() == again.orbit.T_world_camera.tobytes(),
        stored.renderer.get("light") == again.renderer.get("light"),
        float("inf") if error == 0 else float(10 * np.log10(255**2 / error)),
    )


def over_grey(rgba: UInt8[np.ndarray, "n h w 4"]) -> UInt8[np.ndarray, "n h w 3"]:
    """Composite straight-alpha pictures over mid grey."""
    alpha = rgba[..., 3:].astype(np.float64) / 255
    return np.round(rgba[..., :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)


def _stored(run: Run, task: Task) -> list[OrbitImages]:
    output = open_output(run.out_url)
    if task.shard not in list_receipts(output):
        return []
    receipt: Receipt = read_receipt(output, task.shard)
    return [read_sample(output, receipt, sample) for sample in receipt.samples_of(task.uid)]
