"""One finisher: rendered pictures in, a staged object out. Runs in a process of its own.

    FinishJob -> gather (EXR -> arrays) -> examine (checks) -> Staging.commit -> Finished

It reads pickled jobs from a pipe, answers each, and ends when the pipe closes.
"""

import logging
import shutil
import sys
import time
import traceback
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from render_farm.blender import JobResult
from render_farm.cameras import PlannedOrbit
from render_farm.checks import examine
from render_farm.errors import FarmError
from render_farm.gather import gather
from render_farm.records import Filters, ObjectRecord, Refusal, Task
from render_farm.run.staging import Staging
from render_farm.spec import RenderSpec

log = logging.getLogger(__name__)

NO_FACTS = frozenset({"event", "key"})
"""Of the imported event: the protocol's own."""


@dataclass(frozen=True)
class FinishJob:
    """Everything that is needed to finish one object."""

    task: Task
    """What was rendered."""
    spec: RenderSpec
    """How."""
    filters: Filters
    """What is left out."""
    planned: tuple[PlannedOrbit, ...]
    """Its cameras and lights."""
    seed: int
    """What they were drawn from."""
    result: JobResult
    """Where the EXRs are, and what the child said."""
    staging: Path
    """Where the object is put."""
    folder: Path
    """Holds the EXRs; removed afterwards."""
    attempts: int
    """Which attempt this is, from 1."""


@dataclass(frozen=True)
class Finished:
    """What came of it."""

    record: ObjectRecord
    """done: it is staged; failed: with the reason."""
    size_bytes: int = 0
    """Of the staged folder."""


def finish(job: FinishJob) -> Finished:
    """Turn EXRs into a staged object, or say why not. The EXRs are gone afterwards."""
    record = describe(job)
    try:
        return _finish(job, record)
    except FarmError as error:
        return Finished(
            failed(record, Refusal(error.reason, _without_places(job, error), error.stage or "finishing", error.detail))
        )
    except Exception as error:  # noqa: BLE001 - one of the three places: an object must not end the farm
        message = f"finishing failed: {type(error).__name__}: {error}; please report this"
        return Finished(failed(record, Refusal("internal", message, "finishing", traceback.format_exc())))
    finally:
        shutil.rmtree(job.folder, ignore_errors=True)


def _finish(job: FinishJob, record: ObjectRecord) -> Finished:
    times = [time.monotonic()]
    images = gather(
        job.task.uid, job.task.provenance, job.spec, planned=job.planned, seed=job.seed, key=job.task.key,
        sha256=job.task.sha256, result=job.result,
    )  # fmt: skip
    times.append(time.monotonic())
    verdict = examine(images, record.facts, job.filters)
    times.append(time.monotonic())
    record = replace(
        record, quality=verdict.quality, flags=verdict.flags, orbits=tuple(each.orbit.name for each in images),
        stages={**record.stages, "convert_s": times[1] - times[0], "check_s": times[2] - times[1]},
    )  # fmt: skip
    if verdict.refusal is not None:
        return Finished(failed(record, verdict.refusal))
    staging = Staging(job.staging)
    staging.commit(record, images, job.spec.quality)
    return Finished(record, staging.size_bytes(record.shard, record.uid))


def _without_places(job: FinishJob, error: FarmError) -> str:
    """The message without temporary folders: the same object ends with the same words on every machine."""
    return str(error.args[0]).replace(f"{job.folder}/", "")


def describe(job: FinishJob) -> ObjectRecord:
    """Return the record of an object that was rendered, before its pictures are looked at."""
    task, result = job.task, job.result
    facts = {name: value for name, value in result.imported.items() if name not in NO_FACTS}
    return ObjectRecord(
        task.uid, task.key, task.shard, task.sha256, task.provenance, "done", attempts=job.attempts, seed=job.seed,
        facts=facts, stages=dict(result.done.get("stages", {})), wall_s=result.wall_s,
        cpu_s=float(result.done.get("cpu_s", 0.0)), peak_bytes=int(result.done.get("peak_bytes", 0)),
        worker=f"Blender {result.hello.get('blender')} {result.hello.get('device')}",
    )  # fmt: skip


def failed(record: ObjectRecord, refusal: Refusal) -> ObjectRecord:
    """Return the record with a reason instead of orbits."""
    return replace(record, outcome="failed", refusal=refusal, orbits=())


def serve(pipe: Connection) -> None:
    """Answer jobs until the other side closes, or is killed, which may cut a message off or reset the connection."""
    while True:
        try:
            job: Any = pipe.recv()
        except (EOFError, ConnectionError):
            return
        answer = finish(job)
        try:
            pipe.send(answer)
        except ConnectionError:  # what it staged is found again
            return


def main(arguments: list[str]) -> None:
    """Serve the pipe whose file descriptor is the first argument."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    serve(Connection(int(arguments[0])))
