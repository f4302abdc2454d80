"""A Ray cluster: one task a shard. Ray places and repeats tasks; receipts tell what is done.

    driver: shards without a receipt --> tasks (a few more than the cluster holds) --> node: run_shards([shard]) --> receipt

Every node needs this package, the assets and the run's folder at the same paths (a shared disk), and the output.
"""

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray

from render_farm.blender import WORKER
from render_farm.engines.places import claim_place, leave_claim
from render_farm.engines.slurm import all_shards
from render_farm.errors import RunError
from render_farm.run.folder import Run
from render_farm.run.owner import hold
from render_farm.run.scheduler import run_shards
from render_farm.run.settings import FarmSettings
from render_farm.shards import is_sealed, list_receipts, open_output

log = logging.getLogger(__name__)

AHEAD = 2
"""Tasks waiting for each that can run: enough that no node idles, few enough that the queue stays small."""
CANCEL_S = 20.0
"""For tasks to kill their Blenders when the driver is stopped."""
KNOCK_S = 10.0
LOOPBACK = "127.0.0.1"


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


@dataclass(frozen=True)
class Order:
    """What every task is told."""

    folder: str
    """Of the run."""
    settings: FarmSettings
    """Of the scheduler in it."""
    scratch: Path | None
    """For state and temporary files on the node's own disk; None: its folder for temporary files."""
    worker: tuple[str, ...]
    """Command of the Blender children."""


def run_on_ray(
    run: Run,
    settings: FarmSettings,
    *,
    address: str | None = None,
    scratch: Path | None = None,
    worker: tuple[str, ...] = WORKER,
    retries: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> list[ShardReport]:
    """Seal every shard of a run. A cluster that dies, or a driver, loses no sealed shard: call it again.

    Args:
        run: on a disk that all nodes see. Its lock is held meanwhile: one driver at a time.
        settings: of each task; it claims slots * threads cores, and a GPU for each slot with device gpu. Which GPUs
            those are, Ray says.
        address: of the cluster; None: the one that is connected already, set by RAY_ADDRESS or running on this machine,
            else a new one here, for this machine alone, and ended with the call.
        scratch: a folder on each node's own disk; None: the node's folder for temporary files.
        worker: command of the Blender children.
        retries: of a task whose node or process dies.
        progress: is told of sealed shards and all.

    Raises:
        RunError: there is no such cluster, it cannot hold a task, or shards could not be sealed.
        KeyboardInterrupt: tasks are told to kill their children first; nothing that is sealed is lost.
    """
    with hold(run.folder / "lock"), _connected(address):
        claims = _claims(settings)
        _check_room(claims)
        output = open_output(run.out_url)
        names, sealed = all_shards(run), set(list_receipts(output))
        order = Order(str(run.folder), settings, scratch, worker)
        remote = ray.remote(max_retries=retries, **claims)(_seal_one)
        driver = _Driver(lambda shard: remote.remote(order, shard), claims, progress, len(names))
        driver.work([shard for shard in names if shard not in sealed])
        # one that failed may have been sealed all the same, by an attempt on a node that was thought dead
        problems = {shard: why for shard, why in driver.problems.items() if not is_sealed(output, shard)}
    if problems:
        shard, why = next(iter(problems.items()))
        raise RunError(f"{len(problems)} of {len(names)} shards could not be sealed ({shard}: {why}); the others are: mend "
                       "that and run again")  # fmt: skip
    return driver.reports


class _Driver:
    """Hands out shards and gathers reports."""

    def __init__(
        self, start: Callable[[str], Any], claims: dict[str, Any], progress: Callable[[int, int], None] | None, total: int
    ) -> None:  # fmt: skip
        self.reports: list[ShardReport] = []
        self.problems: dict[str, str] = {}
        self._start, self._claims, self._progress, self._total = start, claims, progress, total
        self._flying: dict[Any, str] = {}
        self._is_stuck = False

    def work(self, shards: Sequence[str]) -> None:
        waiting = deque(shards)
        try:
            while waiting or self._flying:
                room = AHEAD * max(1, self._fitting())
                while waiting and len(self._flying) < room:
                    shard = waiting.popleft()
                    self._flying[self._start(shard)] = shard
                ready, _ = ray.wait(list(self._flying), timeout=1.0)
                for reference in ready:
                    self._gather(reference, self._flying.pop(reference))
                if self._progress is not None:
                    self._progress(self._total - len(waiting) - len(self._flying) - len(self.problems), self._total)
        finally:
            self._cancel()

    def _fitting(self) -> int:
        """Tasks that the cluster holds now: nodes come and go."""
        fitting = sum(_tasks_on(node, self._claims) for node in _nodes())
        if not fitting and not self._is_stuck:
            log.warning("no node of the Ray cluster can hold a task any more: waiting for one that can")
        self._is_stuck = not fitting
        return fitting

    def _gather(self, reference: Any, shard: str) -> None:
        try:
            self.reports.append(ray.get(reference))
        except (ray.exceptions.RayError, RunError) as error:
            self.problems[shard] = _reason(error)
            log.warning("shard %s: %s", shard, self.problems[shard])

    def _cancel(self) -> None:
        """After an interruption: a task gets KeyboardInterrupt, and `run_shards` kills its children."""
        if not self._flying:
            return
        for reference in self._flying:
            ray.cancel(reference)
        _, left = ray.wait(list(self._flying), num_returns=len(self._flying), timeout=CANCEL_S)
        for reference in left:
            ray.cancel(reference, force=True)


def _reason(error: Exception) -> str:
    """In one line: of what was raised in a task, without its traceback; of Ray's own errors, their first line."""
    cause = getattr(error, "cause", None)
    lines = str(error if cause is None else cause).strip().splitlines() or [type(error).__name__]
    return lines[0] if cause is None or isinstance(cause, RunError) else f"{type(cause).__name__}: {lines[0]}"


# ------------------------------------------------------------------------------------------------ the cluster
@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """Be connected while the block runs. A new cluster listens on this machine alone, and reports to nobody."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    named = address or os.environ.get("RAY_ADDRESS")
    try:
        _knock(named)
        ray.init(address=named or "auto", **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        if named or not isinstance(error, ConnectionError):
            why = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RunError(f"no Ray cluster answers at {named or 'auto'} ({why}); start one with `ray start --head`, or check "
                           "--ray-address") from error  # fmt: skip
        ray.init(address="local", include_dashboard=False, _node_ip_address=LOOPBACK, **quiet)
    try:
        yield
    finally:
        ray.shutdown()


def _claims(settings: FarmSettings) -> dict[str, Any]:
    execution = settings.execution
    gpus = settings.slots if execution.device == "gpu" else 0
    return {"num_cpus": settings.slots * execution.threads, "num_gpus": gpus}


def _nodes() -> list[dict[str, float]]:
    """Resources of each living node."""
    ask: Callable[[], list[dict[str, Any]]] = ray.nodes  # has no types of its own
    return [node["Resources"] for node in ask() if node["Alive"]]


def _tasks_on(node: dict[str, float], claims: dict[str, Any]) -> int:
    """How many tasks a node holds at a time."""
    wanted = {"CPU": claims["num_cpus"], "GPU": claims["num_gpus"]}
    return int(min(node.get(name, 0.0) // count for name, count in wanted.items() if count))


def _check_room(claims: dict[str, Any]) -> None:
    nodes = _nodes()
    if any(_tasks_on(node, claims) for node in nodes):
        return
    cores, gpus = claims["num_cpus"], claims["num_gpus"]
    asked = f"{cores} cores" + (f" and {gpus} GPUs" if gpus else "")
    largest = max(nodes, key=lambda node: (node.get("GPU", 0.0) if gpus else 0.0, node.get("CPU", 0.0)), default={})
    found = f"{largest.get('CPU', 0.0):g}" + (f" and {largest.get('GPU', 0.0):g}" if gpus else "")
    raise RunError(f"a task claims {asked}, the largest node of the Ray cluster has {found}: ask for fewer --workers or "
                   "--threads")  # fmt: skip


# ------------------------------------------------------------------------------------------------ on a node
def _seal_one(order: Order, shard: str) -> ShardReport:
    """Render one shard in a folder of its own. It stays where the shard could not be sealed: the next attempt takes it."""
    run, context = Run.open(Path(order.folder)), ray.get_runtime_context()
    settings = order.settings
    if settings.execution.device == "gpu":
        settings = replace(settings, gpus=tuple(context.get_accelerator_ids().get("GPU", ())))
    place = claim_place(run, order.scratch, shard)
    summary = run_shards(run, [shard], settings, scratch=place, store_path=place / "state.sqlite", worker=order.worker)
    leave_claim(place)
    return ShardReport(shard, summary.done, summary.failed, context.get_node_id())


def _knock(address: str | None) -> None:
    """Raise OSError where nobody listens at HOST:PORT: Ray's own attempt would end this very process."""
    host, separator, port = (address or "").rpartition(":")
    if separator and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
