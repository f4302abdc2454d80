"""A look at a run: `status`, `failures`, `verify`, `manifest`, `report`, `export`."""

import json
import logging
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from render_farm.cli.looking import Export, Failures, Manifest, Report, Status, Verify
from render_farm.cli.work.progress import count_bar
from render_farm.cli.work.wording import count, duration, size
from render_farm.errors import RunError
from render_farm.export import export
from render_farm.records import ObjectRecord
from render_farm.report import write_report
from render_farm.run.folder import Run
from render_farm.run.memory import run_facts
from render_farm.run.retrying import latest_fates
from render_farm.run.store import Store
from render_farm.shards import build_manifest, list_receipts, open_output, verify

log = logging.getLogger(__name__)


def show_status(flags: Status) -> str:
    """Look, and return what goes to stdout."""
    found = status(Run.open(flags.folder))
    if flags.json:
        return json.dumps(found, indent=1)
    return "\n".join(f"{name:14} {value}" for name, value in _status_rows(found))


def show_failures(flags: Failures) -> str:
    """Look, and return what goes to stdout."""
    failed = [
        r for r in failed_records(Run.open(flags.folder)) if not flags.reason or _refusal(r, "reason") in flags.reason
    ]
    if flags.by == "object":
        return "\n".join(_line(record, flags.detail) for record in failed) or "no failures"
    counted = Counter(_refusal(record, flags.by) or "-" for record in failed)
    return "\n".join(f"{count:8,}  {name}" for name, count in counted.most_common()) or "no failures"


def verify_output(flags: Verify) -> str:
    """Check, and return what goes to stdout."""
    url, folder = _output_of(flags.place)
    with count_bar("shards", flags.talk.quiet) as progress:
        problems = verify(open_output(url), folder, deep=not flags.shallow, progress=progress)
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise RunError(f"{count(len(problems), 'problem')} found")
    return "all is as it was sealed"


def merge_manifest(flags: Manifest) -> str:
    """Merge, and return what goes to stdout."""
    output = open_output(_output_of(flags.place)[0])
    with count_bar("shards", flags.talk.quiet) as progress:
        made = build_manifest(output, progress=progress)
    return json.dumps(asdict(made), indent=1)


def make_report(flags: Report) -> str:
    """Write, and return what goes to stdout."""
    url, folder = _output_of(flags.place)
    output = open_output(url)
    build_manifest(output)
    facts = run_facts(Run.open(folder), 0, os.cpu_count() or 1) if folder is not None else None
    with count_bar("shards", flags.talk.quiet) as progress:
        return write_report(output, title=Path(flags.place).name, run=facts, most_sheets=flags.most_sheets,
                            progress=progress)  # fmt: skip


def export_orbits(flags: Export) -> str:
    """Write, and return what goes to stdout."""
    url, folder = _output_of(flags.place)
    refuses = folder is not None and Run.open(folder).filters.duplicates == "refuse"
    with count_bar("objects", flags.talk.quiet) as progress:
        made = export(
            open_output(url), flags.kind, flags.target, uids=flags.uids or None,
            drop_duplicates=flags.without_duplicates or refuses, image_format=flags.image_format, progress=progress,
        )  # fmt: skip
    log.info(
        "%s, %s, %d of them there already", count(made.objects, "object"), count(len(made.paths), "path"), made.kept
    )
    return str(flags.target)


# ------------------------------------------------------------------------------------------------ looking
def status(run: Run) -> dict[str, Any]:
    """Return where a run stands, as JSON."""
    sizes = run.shards()
    sealed = [shard for shard in list_receipts(open_output(run.out_url)) if shard in sizes]
    fates = latest_fates(run).values()
    failed = [record for record in fates if record is not None]
    found: dict[str, Any] = {
        "objects": len(run.hashes()), "batches": len(run.batches), "shards": len(sizes),
        "sealed": len(sealed), "sealed_done": len(fates) - len(failed), "sealed_failed": len(failed), "out": run.out_url,
        "spec": run.spec.digest, "reasons": dict(Counter(_refusal(record, "reason") for record in failed)),
    }  # fmt: skip
    if run.store_path.exists():
        store = Store(run.store_path, run.spec)
        try:
            counts, sessions = store.counts(), store.sessions()
        finally:
            store.close()
        wall_s = sum(s.ended - s.begun for s in sessions if s.ended is not None)
        slot_wall_s = sum(s.slot_wall_s for s in sessions)
        found |= {
            "done": counts.done, "failed": counts.failed, "pending": counts.pending, "busy": counts.busy,
            "bytes": counts.bytes, "sessions": len(sessions), "wall_s": wall_s,
            "objects_per_h": 3600 * sum(s.done for s in sessions) / wall_s if wall_s else 0.0,
            "render_share": sum(s.render_s for s in sessions) / slot_wall_s if slot_wall_s else 0.0,
        }  # fmt: skip
    return found


def failed_records(run: Run) -> list[ObjectRecord]:
    """Return the newest records of objects without orbits, by uid; those of shards that are not sealed yet too."""
    fates = latest_fates(run)
    if run.store_path.exists():
        store = Store(run.store_path, run.spec)
        try:
            for shard in store.open_shards():
                fates |= {row.record.uid: row.record for row in store.rows(shard) if row.record is not None}
        finally:
            store.close()
    return sorted((record for record in fates.values() if record is not None), key=lambda record: record.uid)


def _status_rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("objects", f"{found['objects']} in {count(found['batches'], 'batch')}"),
            ("shards", f"{found['sealed']} of {found['shards']} sealed, in {found['out']}"),
            ("sealed", f"{found['sealed_done']} done, {found['sealed_failed']} failed")]  # fmt: skip
    if "done" not in found:
        return rows
    left, rate = found["pending"] + found["busy"], found["objects_per_h"]
    rows += [
        ("this machine", f"{found['done']} done, {found['failed']} failed, {found['pending']} waiting, {found['busy']} at work"),
        ("stored", size(found["bytes"])),
        ("time", f"{duration(found['wall_s'])} in {count(found['sessions'], 'session')}, {rate:,.0f} objects/h, "
                 f"{100 * found['render_share']:.1f} % of the workers' time inside Cycles"),
    ]  # fmt: skip
    if left and rate:
        rows.append(("left", f"{count(left, 'object')}: {duration(3600 * left / rate)} at that rate"))
    return rows


def _line(record: ObjectRecord, detail: bool) -> str:
    words = [record.uid, *(_refusal(record, name) for name in ("reason", "stage", "message"))]
    lines = _refusal(record, "detail").splitlines() if detail else []
    return "\n".join(["  ".join(words), *(f"    {line}" for line in lines)])


def _refusal(record: ObjectRecord, field_name: str) -> str:
    return "" if record.refusal is None else str(getattr(record.refusal, field_name))


def _output_of(place: str) -> tuple[str, Path | None]:
    """Where the shards are, and the run's folder if that is what was named."""
    if "://" not in place and Run.exists(Path(place)):
        return Run.open(Path(place)).out_url, Path(place)
    if not list_receipts(open_output(place)):
        raise RunError(f"{place}: expected a run's folder, or the folder or URL that holds its shards, found neither; check "
                       "the path")  # fmt: skip
    return place, None
