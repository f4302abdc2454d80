"""Whole farms in processes of their own, to be killed; and what must be true of them afterwards. With any worker.

program = FarmProgram(FarmOrder(...), log)   a process that has imported everything and waits
program.start(); program.kill()              one session of the scheduler, in a fork of it
program.finish()                             a session until its end
assert_same(run, other)                      the manifests agree, pixels, times and attempts aside
assert_whole(run)                            nothing lost, doubled or left over
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine.files import validate_shard
from render_farm.records import Filters, ObjectRecord, Provenance, Refusal, Task
from render_farm.run.folder import Run
from render_farm.shards import Receipt, open_output
from render_farm.shards.receipts import list_receipts, read_receipt
from render_farm.spec import CameraSpec, RenderSpec, task_key

HERE = Path(__file__).parent
FAKE_WORKER = (sys.executable, str(HERE.parent / "fake_worker.py"))
SPEC = RenderSpec(CameraSpec(views=6), width=32, height=32, samples=1)
"""The fake's pictures of it take a few milliseconds."""


# ------------------------------------------------------------------------------------------------ objects
def fake_task(folder: Path, uid: str, shard: str, spec: RenderSpec = SPEC, refusal: Refusal | None = None) -> Task:
    """A task for the fake worker, whose assets may hold anything."""
    path = folder / f"{uid}.ply"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"an object called {uid}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    provenance = Provenance(f"a ball called {uid}", "ball", "CC0-1.0", "the tests", path.name)
    return Task(uid, str(path), ".ply", digest, path.stat().st_size, task_key(digest, spec), shard, provenance, refusal)


def fake_tasks(
    folder: Path,
    uids: Sequence[str],
    shard_objects: int = 6,
    batch: int = 0,
    refused: Mapping[str, Refusal] | None = None,
) -> list[Task]:
    """Tasks in shards of equal size."""
    return [
        fake_task(folder, uid, f"{batch:03d}-{i // shard_objects:06d}", refusal=(refused or {}).get(uid))
        for i, uid in enumerate(uids)
    ]


def fake_run(folder: Path, uids: Sequence[str], shard_objects: int = 6, **more: Any) -> Run:
    """A run for the fake worker with one batch."""
    run = Run.create(folder / "run", SPEC, Filters(), shard_objects=shard_objects)
    return run.add_batch(fake_tasks(folder / "assets", uids, shard_objects, **more))


# ------------------------------------------------------------------------------------------------ the process
@dataclass(frozen=True)
class FarmOrder:
    """What a farm's process does; plain JSON."""

    run: str
    """Folder of the run."""
    settings: dict[str, Any]
    """Fields of FarmSettings but execution."""
    execution: dict[str, Any]
    """Fields of Execution."""
    worker: Sequence[str] = FAKE_WORKER
    """Command of the children."""
    environment: dict[str, str] = field(default_factory=dict)
    """Added to it."""


class FarmProgram:
    """A process that imports the farm once and forks a scheduler for each session, so that a session starts at once."""

    def __init__(self, order: FarmOrder, log: Path) -> None:
        """Start it; what the farm says goes to the file `log`."""
        self.order, self._log = order, log.open("ab")
        root = str(HERE.parents[2])
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "farm_program.py"), json.dumps(asdict(order))], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._log, env=os.environ | order.environment | {"PYTHONPATH": root},
            start_new_session=True,
        )  # fmt: skip
        self.pid = 0

    def start(self) -> int:
        """Begin a session and return its process id."""
        self.pid = int(self._ask("start"))
        return self.pid

    def kill(self) -> int:
        """SIGKILL the session and return its exit status: -9, unless it had ended before."""
        os.kill(self.pid, signal.SIGKILL)
        return int(self._ask("wait"))

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        os.kill(self.pid, signal.SIGINT)

    def wait(self) -> int:
        """Wait for the session and return its exit status."""
        return int(self._ask("wait"))

    def finish(self) -> int:
        """Run one session to its end and return its exit status."""
        self.start()
        return self.wait()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._log.close()

    def _ask(self, word: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()


def kill_often(program: FarmProgram, kills: int, seed: int, longest_s: float) -> int:
    """Kill sessions at random points and return how many of them were still at work."""
    rng = np.random.default_rng(seed)
    hit = 0
    for _ in range(kills):
        program.start()
        time.sleep(float(rng.uniform(0.0, longest_s)))
        hit += program.kill() == -signal.SIGKILL
    return hit


# ------------------------------------------------------------------------------------------------ what must be true
def receipts(run: Run) -> list[Receipt]:
    """Every receipt of a run."""
    output = open_output(run.out_url)
    return [read_receipt(output, shard) for shard in list_receipts(output)]


def records(run: Run) -> dict[tuple[str, str], ObjectRecord]:
    """Every sealed object's record, by shard and uid."""
    return {(record.shard, record.uid): record for receipt in receipts(run) for record in receipt.records}


def comparable(record: ObjectRecord) -> dict[str, Any]:
    """What must be the same whenever and however often it was tried: no times, no attempts, nothing from pixels."""
    fields = asdict(record)
    for name in ("attempts", "stages", "wall_s", "cpu_s", "peak_bytes", "quality"):
        del fields[name]
    if record.refusal is not None:
        fields["refusal"] = (
            record.refusal.reason,
            record.refusal.stage,
            re.sub(r"[0-9.]+", "#", record.refusal.message),
        )
    return fields


def assert_same(run: Run, other: Run) -> None:
    """The two runs' records agree, and so do the jsons of all orbits: cameras, lights, texts."""
    for one, two in (
        ({key: comparable(record) for key, record in records(each).items()} for each in (run, other)),
        (documents(each) for each in (run, other)),
    ):
        different = [
            (key, one.get(key), two.get(key)) for key in one.keys() | two.keys() if one.get(key) != two.get(key)
        ]
        assert not different, f"{len(different)} differ, such as {different[0]}"


def documents(run: Run) -> dict[str, Any]:
    """Every sealed orbit's json, by shard and name; warnings about borders depend on pixels and stay."""
    return {f"{r.shard}/{s.name}": json.dumps(s.document, sort_keys=True) for r in receipts(run) for s in r.samples}


def assert_whole(run: Run) -> None:
    """Every task is in its shard once, with its orbits; every tar is what its receipt says; nothing else is there."""
    expected = sorted((task.shard, task.uid, task.key) for task in run.tasks())
    found = receipts(run)
    assert sorted((record.shard, record.uid, record.key) for each in found for record in each.records) == expected
    for receipt in found:
        done = {(record.uid, orbit) for record in receipt.records for orbit in record.orbits}
        assert sorted((sample.uid, sample.orbit) for sample in receipt.samples) == sorted(done)
        if receipt.tar is not None:
            tar = Path(run.out_url) / receipt.tar
            assert hashlib.sha256(tar.read_bytes()).hexdigest() == receipt.sha256
            validate_shard(tar)
        keys = {task.uid: task.key for task in run.tasks() if task.shard == receipt.shard}
        assert all(sample.document["renderer"]["task_key"] == keys[sample.uid] for sample in receipt.samples)
    left = leftovers(run)
    assert not left, f"left behind: {left}"


def leftovers(run: Run) -> list[str]:
    """Files of a finished run that are neither its description, its state, nor its results."""
    known = re.compile(
        r"run\.json|lock|state\.sqlite(-wal|-shm)?|batches/\d+\.parquet|shards/[\d-]+\.tar|receipts/[\d-]+\.json|"
        r"batches|shards|receipts|staging|scratch"
    )
    names = (str(path.relative_to(run.folder)) for path in run.folder.rglob("*"))
    return sorted(name for name in names if not known.fullmatch(name))


def wait_for(run: Run, objects: int, within_s: float = 60.0) -> None:
    """Wait until so many objects of a run that a process works on are staged or sealed."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        staged = [path for path in (run.folder / "staging").glob("*") if not path.name.startswith(".")]
        if len(staged) + len(records(run)) >= objects:
            return
        time.sleep(0.05)
    raise AssertionError(f"{objects} objects were not staged within {within_s} s")


def processes_of(folder: Path) -> list[str]:
    """Living processes that name a folder in their command line, or were started by one that has it for its files."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command, environment = process.cmdline(), process.environ()
            places = [*command, *(environment.get(name, "") for name in ("TMPDIR", "FAKE_WORKER_PIDS"))]
            waits = any("farm_program" in argument for argument in command)  # for the next session
            if not waits and any(str(folder) in place for place in places):
                found.append(f"{process.pid} {command}")
        except psutil.Error:
            continue
    return found


def wait_for_none(folder: Path, within_s: float = 5.0) -> list[str]:
    """What is left of a farm's processes after a moment: the kernel takes one to end them."""
    until = time.monotonic() + within_s
    while (found := processes_of(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return found
