"""Many objects: `plan`, `run`, `worker`, `slurm`."""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from render_farm.cli.farming import AnyRun, Plan, RunCommand, Slurm, Worker
from render_farm.cli.options import NewRunFlags, SpecFlags, cores
from render_farm.cli.work.progress import count_bar, farm_bar
from render_farm.cli.work.sources import add_objects, check_source
from render_farm.cli.work.wording import count, plan_text, summary_text
from render_farm.engines.places import leave_place, worker_place
from render_farm.engines.slurm import array_script, chosen_shards
from render_farm.errors import RunError
from render_farm.report import write_report
from render_farm.run.folder import Run
from render_farm.run.memory import MemoryLog, run_facts
from render_farm.run.planning import plan
from render_farm.run.progress import Snapshot, Summary
from render_farm.run.scheduler import run_shards
from render_farm.run.settings import FarmSettings
from render_farm.run.signals import stop_on_signals
from render_farm.shards import build_manifest, check_writable, open_output

log = logging.getLogger(__name__)


def plan_run(flags: Plan) -> str:
    """Estimate, and return what goes to stdout."""
    settings = flags.farm.settings(flags.spec.hdri_folder)
    run = open_or_create(flags)
    with stop_on_signals() as stop, farm_bar("sample", flags.talk.quiet) as progress:
        estimate = plan(
            run, settings, sample=flags.sample, price_per_h=flags.price_per_hour, scratch=flags.farm.scratch,
            progress=progress, stop=stop,
        )  # fmt: skip
    if estimate.sample_failed == estimate.sampled:
        raise RunError(
            f"the whole sample failed ({count(estimate.sampled, 'object')}), so there is no estimate; the log says why"
        )
    return json.dumps(asdict(estimate), indent=1) if flags.json else plan_text(estimate, run.shard_objects)


def run_to_its_end(flags: RunCommand) -> str:
    """Render, and return what goes to stdout."""
    settings = flags.farm.settings(flags.spec.hdri_folder)
    run = open_or_create(flags)
    if flags.engine == "ray":
        from render_farm.engines.ray_cluster import run_on_ray

        with count_bar("shards", flags.talk.quiet) as progress:
            run_on_ray(run, settings, address=flags.ray_address, scratch=flags.farm.scratch, progress=progress)
        return finish_run(run, None, settings)
    summary = work(run, None, settings, flags.farm.scratch, None, quiet=flags.talk.quiet)
    log.info("%s", summary_text(summary))
    if summary.stopped:
        raise KeyboardInterrupt
    return finish_run(run, summary, settings)


def run_share(flags: Worker) -> str:
    """Render, and return what goes to stdout."""
    run = Run.open(flags.folder)
    names = chosen_shards(run, flags.shards)
    place = worker_place(run, flags.farm.scratch, flags.shards)
    settings = flags.farm.settings(flags.hdri_folder)
    summary = work(run, names, settings, place, place / "state.sqlite", quiet=flags.talk.quiet)
    log.info("%s", summary_text(summary))
    if summary.stopped:
        raise KeyboardInterrupt
    leave_place(place)
    return f"{count(len(names), 'shard')} sealed: {count(summary.done, 'object')} done, {summary.failed} failed"


def write_array_script(flags: Slurm) -> str:
    """Write, and return what goes to stdout."""
    array_script(Run.open(flags.folder), flags.job, flags.script)
    log.info("submit it with: sbatch %s; when all is done: turntable-farm manifest %s", flags.script, flags.folder)
    return str(flags.script)


# ------------------------------------------------------------------------------------------------ what they share
def open_or_create(flags: AnyRun) -> Run:
    """Return the run of a folder, made if there is none, with the objects that the flags name."""
    spec = flags.spec.spec()
    if flags.folder.exists() and not flags.folder.is_dir():
        raise RunError(f"{flags.folder}: expected the run's folder, found a file; name the folder")
    if Run.exists(flags.folder):
        run = Run.open(flags.folder)
        run.check(
            spec,
            default=SpecFlags().spec(),
            filters=flags.filters,
            shard_objects=None if flags.new.shard_objects == NewRunFlags().shard_objects else flags.new.shard_objects,
            out=flags.new.out,
        )
    elif not flags.source.given:
        raise RunError(
            f"{flags.folder} is not a run yet: name its objects with --assets, --objaverse or --objaverse-xl"
        )
    else:
        check_source(flags.source)
        if flags.new.out is not None:
            check_writable(open_output(flags.new.out))
        run = Run.create(flags.folder, spec, flags.filters, shard_objects=flags.new.shard_objects, out=flags.new.out)
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
        "manifest: %s, %s, %s, %s",
        count(made.objects, "object"),
        count(made.views, "view"),
        count(made.failures, "failure"),
        count(made.shards, "shard"),
    )
    facts = run_facts(run, settings.slots, os.cpu_count() or 1)
    return write_report(output, title=run.folder.name, run=facts)
