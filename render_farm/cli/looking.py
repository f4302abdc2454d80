"""Commands that look at a run: `status`, `failures`, `verify`, `manifest`, `report`, `export`."""

import json
import logging
import os
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from render_farm.cli.options import Talk
from render_farm.cli.progress import count_bar
from render_farm.cli.wording import duration, size
from render_farm.errors import RunError
from render_farm.export import Kind, export
from render_farm.records import ObjectRecord
from render_farm.report import write_report
from render_farm.run.folder import Run, shard_sizes
from render_farm.run.memory import run_facts
from render_farm.run.retrying import latest_records
from render_farm.run.store import Store
from render_farm.shards import build_manifest, list_receipts, open_output, verify

log = logging.getLogger(__name__)

RunFolder = Annotated[Path, tyro.conf.Positional]
RunOrOutput = Annotated[str, tyro.conf.Positional]


@dataclass(frozen=True)
class Status:
    """Say how far a run is: objects, shards, failures, rate. Works while it is running."""

    folder: RunFolder
    """The run's folder."""
    json: bool = False
    """Print it as JSON."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Look, and return what goes to stdout."""
        found = status(Run.open(self.folder))
        if self.json:
            return json.dumps(found, indent=1)
        return "\n".join(f"{name:14} {value}" for name, value in _status_rows(found))


@dataclass(frozen=True)
class Failures:
    """List the objects that have no orbits, or count them by reason, stage or message."""

    folder: RunFolder
    """The run's folder."""
    by: Literal["object", "reason", "stage", "message"] = "object"
    """What to group by; object lists each one with its message."""
    reason: tuple[str, ...] = ()
    """Only these reasons."""
    detail: bool = False
    """With the last words of the child, for each object."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Look, and return what goes to stdout."""
        failed = [
            r for r in failed_records(Run.open(self.folder)) if not self.reason or _refusal(r, "reason") in self.reason
        ]
        if self.by == "object":
            return "\n".join(self._line(record) for record in failed) or "no failures"
        counted = Counter(_refusal(record, self.by) or "-" for record in failed)
        return "\n".join(f"{count:8,}  {name}" for name, count in counted.most_common()) or "no failures"

    def _line(self, record: ObjectRecord) -> str:
        text = f"{record.uid}  {_refusal(record, 'reason')}  {_refusal(record, 'stage')}  {_refusal(record, 'message')}"
        detail = _refusal(record, "detail")
        return text + (
            "\n" + "\n".join(f"    {line}" for line in detail.splitlines()) if self.detail and detail else ""
        )


@dataclass(frozen=True)
class Verify:
    """Check all that is stored: hashes, every picture, every camera against the spec. Exit status 1 if anything is wrong."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    shallow: bool = False
    """Receipts and hashes of tables only: no tar is read."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Check, and return what goes to stdout."""
        url, folder = _output_of(self.place)
        with count_bar("shards", self.talk.quiet) as progress:
            problems = verify(open_output(url), folder, deep=not self.shallow, progress=progress)
        for problem in problems:
            log.error("%s", problem)
        if problems:
            raise RunError(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'} found")
        return "all is as it was sealed"


@dataclass(frozen=True)
class Manifest:
    """Merge the receipts into the manifest: what `run` does at its end, for runs on a cluster."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Merge, and return what goes to stdout."""
        output = open_output(_output_of(self.place)[0])
        with count_bar("shards", self.talk.quiet) as progress:
            made = build_manifest(output, progress=progress)
        return json.dumps(asdict(made), indent=1)


@dataclass(frozen=True)
class Report:
    """Write the report: contact sheets, failures with their reasons, where the time went. Prints its address."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    most_sheets: int = 64
    """Shards that get contact sheets, spread evenly over all."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Write, and return what goes to stdout."""
        url, folder = _output_of(self.place)
        output = open_output(url)
        build_manifest(output)
        facts = run_facts(Run.open(folder), 0, os.cpu_count() or 1) if folder is not None else None
        with count_bar("shards", self.talk.quiet) as progress:
            return write_report(output, title=Path(self.place).name, run=facts, most_sheets=self.most_sheets,
                                progress=progress)  # fmt: skip


@dataclass(frozen=True)
class Export:
    """Write the orbits for other programs; a run that was cut off goes on. Prints the folder.

    The shards themselves are WebDataset tars and need no export.
    """

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    kind: Kind
    """nerfstudio: transforms.json; opencv: cameras.json; parquet: Hugging Face datasets."""
    target: Path
    """Folder to write to."""
    uids: tuple[str, ...] = ()
    """Only these objects."""
    without_duplicates: bool = False
    """Only the first object of each cluster of duplicates; always so in runs with --duplicates refuse."""
    image_format: Literal["webp", "png"] = "webp"
    """Of the pictures."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Write, and return what goes to stdout."""
        url, folder = _output_of(self.place)
        refuses = folder is not None and Run.open(folder).filters.duplicates == "refuse"
        with count_bar("objects", self.talk.quiet) as progress:
            made = export(
                open_output(url), self.kind, self.target, uids=self.uids or None,
                drop_duplicates=self.without_duplicates or refuses, image_format=self.image_format, progress=progress,
            )  # fmt: skip
        log.info("%d objects, %d paths, %d of them were there already", made.objects, len(made.paths), made.kept)
        return str(self.target)


# ------------------------------------------------------------------------------------------------ looking
def status(run: Run) -> dict[str, object]:
    """Return where a run stands, as JSON."""
    sizes = shard_sizes(run.tasks())
    sealed = [shard for shard in list_receipts(open_output(run.out_url)) if shard in sizes]
    records = latest_records(run).values()
    done, failed = (sum(record.outcome == outcome for record in records) for outcome in ("done", "failed"))
    found: dict[str, object] = {
        "objects": len({task.uid for task in run.tasks()}), "batches": len(run.batches), "shards": len(sizes),
        "sealed": len(sealed), "sealed_done": done, "sealed_failed": failed, "out": run.out_url,
        "spec": run.spec.digest, "reasons": dict(Counter(_refusal(r, "reason") for r in records if r.outcome == "failed")),
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
    records = latest_records(run)
    if run.store_path.exists():
        store = Store(run.store_path, run.spec)
        try:
            for shard in store.open_shards():
                records.update({row.record.uid: row.record for row in store.rows(shard) if row.record is not None})
        finally:
            store.close()
    return sorted((r for r in records.values() if r.outcome == "failed"), key=lambda record: record.uid)


def _status_rows(found: dict[str, object]) -> list[tuple[str, str]]:
    rows = [("objects", f"{found['objects']} in {found['batches']} batches"),
            ("shards", f"{found['sealed']} of {found['shards']} sealed, in {found['out']}"),
            ("sealed", f"{found['sealed_done']} done, {found['sealed_failed']} failed")]  # fmt: skip
    if "done" in found:
        rows += [
            ("here", f"{found['done']} done, {found['failed']} failed, {found['pending']} waiting, {found['busy']} at work"),
            ("stored", size(float(str(found["bytes"])))),
            ("time", f"{duration(float(str(found['wall_s'])))} in {found['sessions']} sessions, "
                     f"{float(str(found['objects_per_h'])):,.0f} objects/h, "
                     f"{100 * float(str(found['render_share'])):.1f} % of the workers' time inside Cycles"),
        ]  # fmt: skip
    return rows


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
