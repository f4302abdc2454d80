"""A Ray cluster: one task a shard. Ray places and repeats tasks; receipts tell what is done.

    driver: shards without a receipt --> tasks (a few more than the cluster holds) --> node: run_shards([shard]) --> receipt

Every node needs this package, the assets and the run's folder at the same paths (a shared disk), and the output.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from render_farm.blender import WORKER
from render_farm.engines.slurm import all_shards
from render_farm.errors import RunError
from render_farm.run.folder import Run
from render_farm.run.scheduler import run_shards
from render_farm.run.settings import FarmSettings
from render_farm.shards import is_sealed, open_output

log = logging.getLogger(__name__)

AHEAD = 2
"""Tasks waiting for each that can run: enough that no node idles, few enough that the queue stays small."""


@dataclass(frozen=True)
class ShardReport:
    """What one task did."""

    shard: str
    """Its name."""
    done: int
    """Objects with orbits."""
    failed: int
    """Objects without."""
    node: str
    """Where it ran: Ray's node id."""


def run_on_ray(
    run: Run,
    settings: FarmSettings,
    *,
    address: str | None = None,
    worker: tuple[str, ...] = WORKER,
    retries: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> list[ShardReport]:
    """Seal every shard of a run. A cluster that dies, or a driver, loses no sealed shard: call it again.

    Args:
        run: on a disk that all nodes see.
        settings: of each task; it claims slots * threads cores, and a GPU for each slot with device gpu.
        address: of the cluster; None: the one that is connected already or set by RAY_ADDRESS, else a new one here.
        worker: command of the Blender children.
        retries: of a task whose node dies.
        progress: is told of sealed shards and all.

    Raises:
        RunError: the cluster cannot hold a task, or shards could not be sealed.
    """
    if not ray.is_initialized():
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING)
    claims = _claims(settings)
    _check_room(claims)
    output = open_output(run.out_url)
    names = all_shards(run)
    waiting = [shard for shard in names if not is_sealed(output, shard)]
    remote = ray.remote(max_retries=retries, **claims)(_seal_one)
    room = AHEAD * max(1, int(ray.cluster_resources()["CPU"] // claims["num_cpus"]))
    flying: dict[Any, str] = {}
    reports, problems = list[ShardReport](), dict[str, str]()
    while waiting or flying:
        while waiting and len(flying) < room:
            shard = waiting.pop(0)
            flying[remote.remote(str(run.folder), shard, settings, worker)] = shard
        ready, _ = ray.wait(list(flying), timeout=1.0)
        for reference in ready:
            shard = flying.pop(reference)
            try:
                reports.append(ray.get(reference))
            except (ray.exceptions.RayError, RunError) as error:
                problems[shard] = str(error).strip().splitlines()[-1]
                log.warning("shard %s: %s", shard, problems[shard])
        if progress is not None:
            progress(len(names) - len(waiting) - len(flying) - len(problems), len(names))
    if problems:
        shard, why = next(iter(problems.items()))
        raise RunError(f"{len(problems)} of {len(names)} shards could not be sealed ({shard}: {why}); the others are: mend "
                       "that and run again")  # fmt: skip
    return reports


def _claims(settings: FarmSettings) -> dict[str, Any]:
    execution = settings.execution
    gpus = settings.slots if execution.device == "gpu" else 0
    return {"num_cpus": settings.slots * execution.threads, "num_gpus": gpus}


def _check_room(claims: dict[str, Any]) -> None:
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if largest < claims["num_cpus"]:
        raise RunError(f"a task claims {claims['num_cpus']} cores, the largest node of the Ray cluster has {largest:g}: ask "
                       "for fewer --workers or --threads")  # fmt: skip


def _seal_one(folder: str, shard: str, settings: FarmSettings, worker: tuple[str, ...]) -> ShardReport:
    """On a node: render one shard with state and temporary files of its own, gone afterwards."""
    run = Run.open(Path(folder))
    with tempfile.TemporaryDirectory(prefix=f"turntable-{shard}.") as place:
        summary = run_shards(
            run, [shard], settings, scratch=Path(place), store_path=Path(place) / "state.sqlite", worker=worker
        )
    return ShardReport(shard, summary.done, summary.failed, ray.get_runtime_context().get_node_id())
