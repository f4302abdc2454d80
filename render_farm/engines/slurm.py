"""SLURM: a job array of the same `turntable-farm worker` command, each job with every n-th shard."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from engine.files import write_bytes
from render_farm.errors import RunError
from render_farm.run.folder import Run

SHARE = re.compile(r"(\d+)/(\d+)")


@dataclass(frozen=True)
class ArrayJob:
    """What is asked of the cluster."""

    array: int
    """Jobs."""
    at_a_time: int = 0
    """Of them at a time; 0: no limit."""
    cpus: int = 16
    """Cores of each."""
    gpus: int = 0
    """GPUs of each."""
    memory_gb: int = 64
    """Of each."""
    time: str = "24:00:00"
    """Limit of each."""
    partition: str | None = None
    """Of the cluster."""
    setup: str = ""
    """Shell line that makes `turntable-farm` available."""

    def __post_init__(self) -> None:
        for name in ("array", "cpus", "memory_gb"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def all_shards(run: Run) -> list[str]:
    """Return the names of a run's shards, in order."""
    return sorted({task.shard for task in run.tasks()})


def chosen_shards(run: Run, share: str) -> list[str]:
    """Return the shards of one worker.

    Args:
        run: the run.
        share: I/N.

    Raises:
        RunError: the share is not I/N with I below N.
    """
    match = SHARE.fullmatch(share)
    if match is None or not int(match[1]) < int(match[2]):
        raise RunError(f"--shards must be I/N with I from 0 to N - 1, such as 3/16, got {share!r}")
    return all_shards(run)[int(match[1]) :: int(match[2])]


def array_script(run: Run, job: ArrayJob, path: Path) -> None:
    """Write the script. Raises RunError if there are more jobs than shards, TurntableError if it cannot be written."""
    shards = len(all_shards(run))
    if job.array > shards:
        raise RunError(f"an array of {job.array} jobs is more than this run's {shards} shards: ask for --array {shards} or "
                       "fewer, or make the run with a smaller --shard-objects")  # fmt: skip
    limit = f"%{job.at_a_time}" if job.at_a_time else ""
    options = [
        f"--job-name=turntable-{run.folder.name}", f"--array=0-{job.array - 1}{limit}", f"--cpus-per-task={job.cpus}",
        f"--mem={job.memory_gb}G", f"--time={job.time}", "--signal=B:TERM@120", "--requeue",
        f"--output={run.folder}/slurm-%A_%a.log",
    ]  # fmt: skip
    options += [f"--partition={job.partition}"] if job.partition else []
    options += [f"--gpus-per-task={job.gpus}"] if job.gpus else []
    worker = [
        "turntable-farm",
        "worker",
        shlex.quote(str(run.folder)),
        "--shards",
        f'"${{SLURM_ARRAY_TASK_ID}}/{job.array}"',
    ]
    worker += ["--scratch", '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"']
    if job.gpus:
        worker += [
            "--device",
            "gpu",
            "--gpus",
            "${CUDA_VISIBLE_DEVICES//,/ }",
            "--threads",
            str(max(1, job.cpus // job.gpus)),
        ]
    else:
        worker += ["--workers", str(job.cpus), "--threads", "1"]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), "set -euo pipefail"]
    lines += [job.setup] if job.setup else []
    # bash passes the signal on, so that the worker stages what it has and the requeued job goes on from there
    lines += ["trap 'kill -TERM $child' TERM", " ".join(worker) + " &", "child=$!", 'wait "$child" || wait "$child"']
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    path.chmod(0o755)
