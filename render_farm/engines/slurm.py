"""SLURM: a job array of the same `turntable-farm worker` command, each job with every n-th shard."""

import re
import shlex
from pathlib import Path

from engine.files import write_bytes
from render_farm.engines.array_job import ArrayJob
from render_farm.errors import RunError
from render_farm.run.folder import Run

SHARE = re.compile(r"(\d+)/(\d+)", re.ASCII)


def all_shards(run: Run) -> list[str]:
    """Return the names of a run's shards, in order."""
    return list(run.shards())


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
    """Write the script.

    Raises:
        ValueError: less of something is asked for than makes sense.
        RunError: there are more jobs than shards.
        TurntableError: it cannot be written.
    """
    for name, least in (("array", 1), ("at_a_time", 0), ("cpus", 1), ("gpus", 0), ("memory_gb", 1)):
        if getattr(job, name) < least:
            raise ValueError(f"{name} must be at least {least}, got {getattr(job, name)}")
    shards = len(all_shards(run))
    if job.array > shards:
        raise RunError(f"an array of {job.array} jobs is more than this run's {shards} shards: ask for --array {shards} or "
                       "fewer, or make the run with a smaller --shard-objects")  # fmt: skip
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in _options(run, job)), "set -e"]
    lines += [job.setup] if job.setup else []  # before -u, which many a site's setup does not bear
    # In the shell's place, the worker itself gets the SIGTERM that SLURM sends the batch shell before it kills: it stages
    # what it has, seals what is whole, and its status is the job's. (bash's `wait` can lose the status to a 2nd signal.)
    lines += ["set -u", "exec " + " ".join(_worker(run, job)), ""]
    write_bytes(path, "\n".join(lines).encode())
    path.chmod(0o755)


def _options(run: Run, job: ArrayJob) -> list[str]:
    limit = f"%{job.at_a_time}" if job.at_a_time else ""
    logs = f"{run.folder}/slurm-".replace("%", "%%") + "%A_%a.log"
    options = [
        f"--job-name=turntable-{re.sub(r'[^A-Za-z0-9._-]', '-', run.folder.name)}", f"--array=0-{job.array - 1}{limit}",
        f"--cpus-per-task={job.cpus}", f"--mem={job.memory_gb}G", f"--time={job.time}", "--signal=B:TERM@120", "--requeue",
        f"--output={shlex.quote(logs)}",
    ]  # fmt: skip
    options += [f"--partition={job.partition}"] if job.partition else []
    options += [f"--gpus-per-task={job.gpus}"] if job.gpus else []
    return options


def _worker(run: Run, job: ArrayJob) -> list[str]:
    worker = [
        "turntable-farm", "worker", shlex.quote(str(run.folder)), "--shards", f'"${{SLURM_ARRAY_TASK_ID}}/{job.array}"',
        "--scratch", '"${SLURM_TMPDIR:-${TMPDIR:-/tmp}}"',
    ]  # fmt: skip
    if not job.gpus:
        return [*worker, "--workers", str(job.cpus), "--threads", "1"]
    threads = str(max(1, job.cpus // job.gpus))
    return [*worker, "--device", "gpu", "--gpus", "${CUDA_VISIBLE_DEVICES//,/ }", "--threads", threads]
