"""What the farms of these tests are given, and the worker that gets it. The worker is told by its command, not by our
environment: a Ray node has one of its own."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from render_farm.records import Refusal
from render_farm.run.folder import Run
from render_farm.run.settings import FarmSettings
from render_farm.spec import Execution
from tests.render_farm.run.farms import FAKE_WORKER, fake_run

SETTINGS = FarmSettings(slots=1, execution=Execution(threads=1), retries=1, min_free_bytes=0)
BEHAVIOURS = {"b_1": "refuse", "b_4": "segfault", "a_2": "blank", "a_5": "cut-picture", "a_3": "segfault,well"}
UIDS = [f"{letter}_{i}" for i in range(6) for letter in "ab"]
LICENCE = Refusal("licence", "CC-BY-NC-4.0 is not allowed")


def make(folder: Path, shard_objects: int = 2) -> Run:
    """Twelve objects, of which five fail and one fails at first."""
    return fake_run(folder, UIDS, shard_objects, refused={"b_3": LICENCE})


def worker(folder: Path, behaviours: Mapping[str, str] = BEHAVIOURS, view_s: float = 0.0) -> tuple[str, ...]:
    """The fake worker; the pids of all that were started are in folder/started.pids."""
    (folder / "attempts").mkdir(parents=True, exist_ok=True)
    table = json.dumps({f"{uid}.ply": each for uid, each in behaviours.items()})
    return (
        "/usr/bin/env", f"FAKE_WORKER_TABLE={table}", f"FAKE_WORKER_ATTEMPTS={folder / 'attempts'}",
        f"FAKE_WORKER_PIDS={folder / 'started.pids'}", f"FAKE_WORKER_VIEW_S={view_s}", *FAKE_WORKER,
    )  # fmt: skip


def started(folder: Path) -> list[int]:
    """Pids of all fake workers so far."""
    path = folder / "started.pids"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def wait_until(condition: Callable[[], bool], within_s: float = 90.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)
