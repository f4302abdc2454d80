"""The catalogue entries that the flags of a source stand for, and the batch that becomes of them."""

import logging
from pathlib import Path

from render_farm.catalogue.captions import read_captions, with_captions
from render_farm.catalogue.entry import Entry, Progress
from render_farm.catalogue.folder import folder_entries
from render_farm.catalogue.scan import scan
from render_farm.catalogue.table import table_entries
from render_farm.cli.options import SourceFlags
from render_farm.cli.work.wording import count
from render_farm.errors import RunError
from render_farm.run.folder import Run

log = logging.getLogger(__name__)

SCAN_CACHE = "files.sqlite"


def check_source(flags: SourceFlags) -> None:
    """Raise RunError if a list or folder is not there or names nothing, before anything is made for it."""
    if flags.assets is not None:
        _named(flags.assets)


def source_entries(flags: SourceFlags, licences: tuple[str, ...], progress: Progress | None) -> list[Entry]:
    """Return the objects, fetched where that is needed.

    Raises:
        RunError: a source cannot be read.
    """
    found: list[Entry] = []
    if flags.assets is not None:
        found += _named(flags.assets)
    if flags.objaverse:
        from render_farm.catalogue.objaverse import ObjaverseChoice, objaverse_entries

        choice = ObjaverseChoice(flags.uids, flags.lvis, flags.limit, licences)
        found += objaverse_entries(choice, home=flags.objaverse_home, processes=flags.downloads, progress=progress)
    if flags.objaverse_xl:
        from render_farm.catalogue.objaverse_xl import XlChoice, objaverse_xl_entries

        xl = XlChoice(flags.objaverse_xl, flags.alignment, sha256_file=flags.uids, limit=flags.limit, licences=licences)
        found += objaverse_xl_entries(xl, home=flags.objaverse_home, processes=flags.downloads, progress=progress)
    if flags.limit is not None:
        found = sorted(found, key=lambda entry: entry.uid)[: flags.limit]
    return found if flags.captions is None else with_captions(found, read_captions(flags.captions))


def add_objects(run: Run, flags: SourceFlags, *, workers: int, progress: Progress | None = None) -> Run:
    """Add what a source names and the run does not have as a new batch; return the run as it then is."""
    known = run.hashes()
    entries = source_entries(flags, run.filters.licences, progress)
    if not entries:
        raise RunError("the source names no objects; check the path, the categories and the limit")
    tasks = scan(
        entries, run.spec, run.filters, run.next_batch, run.shard_objects, known, cache=run.folder / SCAN_CACHE,
        workers=workers, progress=progress,
    )  # fmt: skip
    if not tasks:  # the scan has said so
        return run
    refused = sum(task.refusal is not None for task in tasks)
    log.info("%s added in %s; %d of them refused before rendering", count(len(tasks), "object"),
             count(len({task.shard for task in tasks}), "shard"), refused)  # fmt: skip
    return run.add_batch(tasks)


def _named(assets: Path) -> list[Entry]:
    if not assets.exists():
        raise RunError(f"{assets}: there is no such file or folder; name a folder of models or a list of them")
    return folder_entries(assets) if assets.is_dir() else table_entries(assets)
