"""How long, how much, at what price: a sample is rendered by the very scheduler, and the rest is estimated from it.

Objects are sorted by file size and cut into as many equal strata as the sample has objects; of each stratum the one
with the smallest hash is rendered. What a slot spends on an object, start of Blender left out, is averaged: the strata
are equal, so that the mean of the sample estimates the mean of all.
"""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from render_farm.blender import WORKER
from render_farm.errors import RunError
from render_farm.run.folder import Run
from render_farm.run.progress import Snapshot
from render_farm.run.scheduler import run_shards
from render_farm.run.schema import AttemptCost
from render_farm.run.settings import FarmSettings
from render_farm.run.store import Store

PLAN_SHARD = "000-000000"


@dataclass(frozen=True)
class Plan:
    """An estimate."""

    objects: int
    """To be rendered."""
    refused: int
    """Refused before rendering: they cost nothing."""
    sampled: int
    """Rendered for this estimate."""
    sample_failed: int
    """Of them."""
    slots: int
    """Blenders at a time."""
    slot_s: float
    """Seconds of a slot for each object, mean of the sample."""
    start_s: float
    """Seconds to start a Blender."""
    objects_per_h: float
    """At full steam."""
    hours: float
    """Until the last object."""
    hours_error: float
    """Standard error of `hours`."""
    bytes: int
    """Of the shards."""
    render_share: float
    """Share of the slots' time inside Cycles."""
    cpu_hours: float
    """Of the Blenders, all objects."""
    cost: float | None
    """Hours times the price; None without one."""


def choose_sample(sizes: Mapping[str, int], count: int) -> list[str]:
    """Return `count` uids of those with these file sizes, one of each stratum; the same ones every time."""
    ordered = sorted(sizes, key=lambda uid: (sizes[uid], uid))
    strata = np.array_split(np.arange(len(ordered)), min(count, len(ordered)))
    return [min((ordered[i] for i in stratum), key=_lot) for stratum in strata]


def plan(
    run: Run,
    settings: FarmSettings,
    *,
    sample: int = 24,
    price_per_h: float | None = None,
    scratch: Path | None = None,
    worker: tuple[str, ...] = WORKER,
    progress: Callable[[Snapshot], None] | None = None,
    stop: threading.Event | None = None,
) -> Plan:
    """Render a sample of a run's open objects in a temporary run and estimate the rest.

    Args:
        run: with its objects.
        settings: those of the run to come: the estimate holds for this machine and these slots.
        sample: objects to render.
        price_per_h: of this machine.
        scratch: where the temporary run lies; the run's own by default.
        worker: command of the Blender children.
        progress: of the sample.
        stop: ends it.

    Raises:
        RunError: nothing to render, or the sample was stopped.
    """
    sizes = run.sizes()
    todo = {uid: size for uid, size in sizes.items() if size is not None}
    if not todo:
        raise RunError(f"{run.folder}: there is nothing to render: {len(sizes)} objects, all refused before rendering")
    uids = choose_sample(todo, sample)
    tasks = run.newest_tasks(uids)
    chosen = [replace(tasks[uid], shard=PLAN_SHARD) for uid in uids]
    place = scratch or run.scratch
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="plan.", dir=place) as folder:
        trial = Run.create(Path(folder) / "run", run.spec, run.filters, shard_objects=len(chosen)).add_batch(chosen)
        summary = run_shards(trial, None, settings, worker=worker, progress=progress, stop=stop, is_trial=True)
        if summary.stopped:
            raise RunError("stopped: the sample was not finished, so there is no estimate; start again")
        store = Store(trial.store_path, trial.spec)
        try:
            costs, bytes_made = store.attempt_costs(), store.counts().bytes
        finally:
            store.close()
    start_s = start_seconds(costs)
    per_object = object_seconds(costs, start_s)
    slot_s, error = float(np.mean(per_object)), float(np.std(per_object) / np.sqrt(len(per_object)))
    made = max(summary.done, 1)
    starts = start_s * (1 + len(todo) / settings.slots / settings.recycle_objects)
    hours = (slot_s * len(todo) / settings.slots + starts) / 3600
    return Plan(
        objects=len(todo), refused=len(sizes) - len(todo), sampled=len(chosen), sample_failed=summary.failed,
        slots=settings.slots, slot_s=slot_s, start_s=start_s, objects_per_h=3600 * settings.slots / slot_s, hours=hours,
        hours_error=error * len(todo) / settings.slots / 3600,
        bytes=round(bytes_made / made * len(todo) * summary.done / len(chosen)),
        render_share=sum(cost.render_s for cost in costs) / sum(cost.wall_s for cost in costs),
        cpu_hours=slot_s * len(todo) * settings.execution.threads / 3600,
        cost=None if price_per_h is None else hours * price_per_h,
    )  # fmt: skip


def start_seconds(costs: Sequence[AttemptCost]) -> float:
    """What starting a Blender takes: how much more the first attempt of a slot spends outside Cycles than later ones."""
    first = _firsts(costs)
    later = [cost.wall_s - cost.render_s for cost in costs if cost not in first]
    if not later:
        return 0.0
    return max(0.0, float(np.median([cost.wall_s - cost.render_s for cost in first]) - np.median(later)))


def object_seconds(costs: Sequence[AttemptCost], start_s: float) -> list[float]:
    """Return what each object took of its slot, all its attempts together, without the slot's start."""
    first, seconds = _firsts(costs), dict[str, float]()
    for cost in costs:
        wall_s = cost.wall_s - start_s if cost in first else cost.wall_s
        seconds[cost.uid] = seconds.get(cost.uid, 0.0) + max(wall_s, cost.render_s)
    return list(seconds.values())


def _firsts(costs: Sequence[AttemptCost]) -> list[AttemptCost]:
    """The first attempt of each slot; costs come in the order of their begin."""
    first: dict[int, AttemptCost] = {}
    for cost in costs:
        first.setdefault(cost.slot, cost)
    return list(first.values())


def _lot(uid: str) -> str:
    return hashlib.blake2b(uid.encode(), digest_size=8).hexdigest()
