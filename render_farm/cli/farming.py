"""Commands that render many objects: `plan`, `run`, `worker`, `slurm`."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from render_farm.cli.options import ComputeFlags, FilterFlags, SpecFlags, Talk, cores
from render_farm.cli.progress import count_bar, farm_bar
from render_farm.cli.sources import SourceFlags, add_objects
from render_farm.cli.wording import plan_text, summary_text
from render_farm.engines.places import leave_place, worker_place
from render_farm.engines.slurm import ArrayJob, array_script, chosen_shards
from render_farm.errors import RunError
from render_farm.report import write_report
from render_farm.run.folder import Run
from render_farm.run.memory import MemoryLog, run_facts
from render_farm.run.planning import plan
from render_farm.run.progress import Snapshot, Summary
from render_farm.run.scheduler import run_shards
from render_farm.run.settings import FarmSettings
from render_farm.run.signals import stop_on_signals
from render_farm.shards import build_manifest, open_output

log = logging.getLogger(__name__)

RunFolder = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class FarmFlags:
    """How a machine works: none of this changes a picture."""

    workers: int | None = None
    """Blenders at a time; by default one for each core, or one for each GPU of --gpus."""
    threads: int | None = None
    """Render threads of each; by default the cores shared out. Many workers of one thread beat one of many."""
    finishers: int = 1
    """Processes that convert, check and store."""
    gpus: tuple[str, ...] = ()
    """Numbers or UUIDs of GPUs, dealt out to the workers in turn; with --device gpu."""
    recycle: int = 75
    """Objects after which a Blender is replaced by a fresh one."""
    recycle_gib: float = 0.0
    """Memory at which a Blender is replaced after an object; 0: never."""
    retries: int = 2
    """Further attempts after a crash, a timeout or a full disk."""
    scratch: Path | None = None
    """Folder for temporary files; by default in the run's folder."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """Each Blender."""

    def settings(self, hdri_folder: Path | None) -> FarmSettings:
        """Return the scheduler's settings."""
        workers = self.workers or len(self.gpus) or cores()
        threads = self.threads or max(1, cores() // workers)
        return FarmSettings(
            slots=workers, execution=self.compute.execution(threads, hdri_folder), recycle_objects=self.recycle,
            recycle_bytes=int(self.recycle_gib * 2**30), retries=self.retries, finishers=self.finishers, gpus=self.gpus,
        )  # fmt: skip


@dataclass(frozen=True)
class NewRunFlags:
    """A run's own settings, fixed when it is made."""

    out: str | None = None
    """Where shards, receipts and manifest go: a folder, or a URL such as s3://bucket/folder; by default the run's folder."""
    shard_objects: int = 256
    """Objects in a shard, about."""


@dataclass(frozen=True)
class Plan:
    """Say how long a run will take, how much it will store and cost: renders a sample of its objects.

    Makes the run, or takes the one that is there; `run` then goes on with it.
    """

    folder: RunFolder
    """The run's folder."""
    sample: int = 24
    """Objects to render for the estimate."""
    price_per_hour: float | None = None
    """Of this machine, in any currency."""
    json: bool = False
    """Print the estimate as JSON."""
    source: Flags[SourceFlags] = field(default_factory=SourceFlags)
    """Which objects."""
    spec: Flags[SpecFlags] = field(default_factory=SpecFlags)
    """What to render."""
    filters: Flags[FilterFlags] = field(default_factory=FilterFlags)
    """What to leave out."""
    new: Flags[NewRunFlags] = field(default_factory=NewRunFlags)
    """Where to."""
    farm: Flags[FarmFlags] = field(default_factory=FarmFlags)
    """How."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Estimate, and return what goes to stdout."""
        settings = self.farm.settings(self.spec.hdri_folder)
        run = open_or_create(self)
        with stop_on_signals() as stop, farm_bar("sample", self.talk.quiet) as progress:
            estimate = plan(
                run, settings, sample=self.sample, price_per_h=self.price_per_hour, scratch=self.farm.scratch,
                progress=progress, stop=stop,
            )  # fmt: skip
        return json.dumps(asdict(estimate), indent=1) if self.json else plan_text(estimate)


@dataclass(frozen=True)
class RunCommand:
    """Render a run to its end: objects in, sealed shards, manifest and report out.

    The first time, name the objects and what to render. After that the folder is enough: `run FOLDER` goes on where it
    was stopped or killed. Naming objects again adds those that the run does not have.
    """

    folder: RunFolder
    """The run's folder."""
    engine: Literal["local", "ray"] = "local"
    """local: this machine; ray: a Ray cluster, a shard at a time, the run's folder on a disk that all nodes share."""
    ray_address: str | None = None
    """Of the cluster; by default the one this machine belongs to, or a new one on it."""
    source: Flags[SourceFlags] = field(default_factory=SourceFlags)
    """Which objects."""
    spec: Flags[SpecFlags] = field(default_factory=SpecFlags)
    """What to render."""
    filters: Flags[FilterFlags] = field(default_factory=FilterFlags)
    """What to leave out."""
    new: Flags[NewRunFlags] = field(default_factory=NewRunFlags)
    """Where to."""
    farm: Flags[FarmFlags] = field(default_factory=FarmFlags)
    """How."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Render, and return what goes to stdout."""
        settings = self.farm.settings(self.spec.hdri_folder)
        run = open_or_create(self)
        if self.engine == "ray":
            from render_farm.engines.ray_cluster import run_on_ray

            with count_bar("shards", self.talk.quiet) as progress:
                run_on_ray(run, settings, address=self.ray_address, scratch=self.farm.scratch, progress=progress)
            return finish_run(run, None, settings)
        summary = work(run, None, settings, self.farm.scratch, None, quiet=self.talk.quiet)
        log.info("%s", summary_text(summary))
        if summary.stopped:
            raise KeyboardInterrupt
        return finish_run(run, summary, settings)


@dataclass(frozen=True)
class Worker:
    """Render a share of a run's shards: what a SLURM array job starts, or you on any machine that sees the folder.

    State and temporary files lie in --scratch, which must be this worker's own. Receipts tell what is sealed, so no two
    workers need to know of each other. `manifest` merges them when all are done.
    """

    folder: RunFolder
    """The run's folder."""
    shards: str
    """I/N: of the run's shards, in order, those at I, I + N, I + 2 N...; I from 0."""
    farm: Flags[FarmFlags] = field(default_factory=FarmFlags)
    """How."""
    hdri_folder: Path | None = None
    """HDR pictures, if the run's light needs them."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Render, and return what goes to stdout."""
        run = Run.open(self.folder)
        names = chosen_shards(run, self.shards)
        place = worker_place(run, self.farm.scratch, self.shards)
        settings = self.farm.settings(self.hdri_folder)
        summary = work(run, names, settings, place, place / "state.sqlite", quiet=self.talk.quiet)
        log.info("%s", summary_text(summary))
        if summary.stopped:
            raise KeyboardInterrupt
        leave_place(place)
        return f"{len(names)} shards sealed: {summary.done} objects done, {summary.failed} failed"


@dataclass(frozen=True)
class Slurm:
    """Write the script of a SLURM job array that renders a run, and say how to submit it. Prints its path."""

    folder: RunFolder
    """The run's folder, on a disk that all nodes share; `plan` makes it."""
    script: Path
    """The script to write."""
    array: int = 16
    """Jobs in the array."""
    at_a_time: int = 0
    """Of them at a time; 0: as many as the cluster gives."""
    cpus: int = 16
    """Cores of each job."""
    gpus: int = 0
    """GPUs of each job; one Blender for each."""
    memory_gb: int = 64
    """Of each job."""
    time: str = "24:00:00"
    """Limit of each job; it may be cut off anywhere: submit again, and it goes on."""
    partition: str | None = None
    """Of the cluster."""
    setup: str = ""
    """Shell line that makes `turntable-farm` available, such as 'source /shared/venv/bin/activate'."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Write, and return what goes to stdout."""
        job = ArrayJob(
            self.array, self.at_a_time, self.cpus, self.gpus, self.memory_gb, self.time, self.partition, self.setup
        )
        array_script(Run.open(self.folder), job, self.script)
        log.info("submit it with: sbatch %s; when all is done: turntable-farm manifest %s", self.script, self.folder)
        return str(self.script)


# ------------------------------------------------------------------------------------------------ what they share
def open_or_create(flags: Plan | RunCommand) -> Run:
    """Return the run of a folder, made if there is none, with the objects that the flags name."""
    spec, filters = flags.spec.spec(), flags.filters.filters()
    if Run.exists(flags.folder):
        run = Run.open(flags.folder)
        run.check(
            spec,
            default=SpecFlags().spec(),
            filters=None if flags.filters == FilterFlags() else filters,
            shard_objects=None if flags.new.shard_objects == NewRunFlags().shard_objects else flags.new.shard_objects,
            out=flags.new.out,
        )
    elif not flags.source.given:
        raise RunError(
            f"{flags.folder} is not a run yet: name its objects with --assets, --objaverse or --objaverse-xl"
        )
    else:
        flags.source.check()
        run = Run.create(flags.folder, spec, filters, shard_objects=flags.new.shard_objects, out=flags.new.out)
    if flags.source.given:
        with count_bar("objects", flags.talk.quiet) as progress:
            run = add_objects(run, flags.source, workers=cores(), progress=progress)
    if not run.batches:
        raise RunError(
            f"{flags.folder}: this run has no objects; name some with --assets, --objaverse or --objaverse-xl"
        )
    return run


def work(
    run: Run, shards: Sequence[str] | None, settings: FarmSettings, scratch: Path | None, store_path: Path | None, *,
    quiet: bool,
) -> Summary:  # fmt: skip
    """Render with bar, memory log and a polite end on Ctrl-C."""
    memory = MemoryLog((store_path or run.store_path).with_name("memory.jsonl"))
    with stop_on_signals() as stop, farm_bar("objects", quiet) as show:

        def progress(snapshot: Snapshot) -> None:
            memory.note(snapshot)
            show(snapshot)

        return run_shards(run, shards, settings, scratch=scratch, store_path=store_path, progress=progress, stop=stop)


def finish_run(run: Run, summary: Summary | None, settings: FarmSettings) -> str:
    """Merge the receipts, write the report, and return its address."""
    output = open_output(run.out_url)
    made = build_manifest(output)
    log.info(
        "manifest: %d objects, %d views, %d failures, %d shards", made.objects, made.views, made.failures, made.shards
    )
    facts = run_facts(run, settings.slots, os.cpu_count() or 1)
    return write_report(output, title=run.folder.name, run=facts)


__all__ = ["Plan", "RunCommand", "Slurm", "Worker", "finish_run", "open_or_create"]
