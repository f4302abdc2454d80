"""Flags that name objects, and the catalogue entries that they stand for."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from render_farm.catalogue.captions import read_captions, with_captions
from render_farm.catalogue.entry import Entry, Progress
from render_farm.catalogue.folder import folder_entries
from render_farm.catalogue.scan import scan
from render_farm.catalogue.table import table_entries
from render_farm.errors import RunError
from render_farm.run.folder import Run

log = logging.getLogger(__name__)

SCAN_CACHE = "files.sqlite"


@dataclass(frozen=True)
class SourceFlags:
    """Which objects. With a run that has objects already, those that it does not have are added."""

    assets: Path | None = None
    """A folder of models, or a list: .csv, .tsv, .parquet or .json with the columns path and optionally uid, caption,
    label, license, attribution, source."""
    objaverse: bool = False
    """Objaverse 1.0, through its own package; what is not on disk is fetched."""
    objaverse_xl: tuple[Literal["github", "thingiverse", "smithsonian", "sketchfab"], ...] = ()
    """Sources of Objaverse-XL, through the same package."""
    alignment: bool = False
    """Of Objaverse-XL: only its alignment subset."""
    objaverse_home: Path | None = None
    """Where that package keeps its files; by default ~/.objaverse."""
    uids: Path | None = None
    """A file of Objaverse uids (of XL: sha256), one a line."""
    lvis: tuple[str, ...] = ()
    """LVIS categories of Objaverse."""
    captions: Path | None = None
    """Cap3D's CSV: uid, caption."""
    limit: int | None = None
    """At most so many objects."""
    downloads: int = 8
    """Downloads at a time."""

    @property
    def given(self) -> bool:
        """Whether any source is named."""
        return self.assets is not None or self.objaverse or bool(self.objaverse_xl)

    def check(self) -> None:
        """Raise RunError if a list or folder is not there or names nothing, before anything is made for it."""
        if self.assets is not None:
            self._named(self.assets)

    @staticmethod
    def _named(assets: Path) -> list[Entry]:
        if not assets.exists():
            raise RunError(f"{assets}: there is no such file or folder; name a folder of models or a list of them")
        return folder_entries(assets) if assets.is_dir() else table_entries(assets)

    def entries(self, licences: tuple[str, ...], progress: Progress | None) -> list[Entry]:
        """Return the objects, fetched where that is needed.

        Raises:
            RunError: a source cannot be read.
        """
        found: list[Entry] = []
        if self.assets is not None:
            found += self._named(self.assets)
        if self.objaverse:
            from render_farm.catalogue.objaverse import ObjaverseChoice, objaverse_entries

            choice = ObjaverseChoice(self.uids, self.lvis, self.limit, licences)
            found += objaverse_entries(choice, home=self.objaverse_home, processes=self.downloads, progress=progress)
        if self.objaverse_xl:
            from render_farm.catalogue.objaverse_xl import XlChoice, objaverse_xl_entries

            xl = XlChoice(self.objaverse_xl, self.alignment, sha256_file=self.uids, limit=self.limit, licences=licences)
            found += objaverse_xl_entries(xl, home=self.objaverse_home, processes=self.downloads, progress=progress)
        if self.limit is not None:
            found = sorted(found, key=lambda entry: entry.uid)[: self.limit]
        return found if self.captions is None else with_captions(found, read_captions(self.captions))


def add_objects(run: Run, source: SourceFlags, *, workers: int, progress: Progress | None = None) -> Run:
    """Add what a source names and the run does not have as a new batch; return the run as it then is."""
    known = {task.uid: task.sha256 for task in run.tasks()}
    entries = source.entries(run.filters.licences, progress)
    if not entries:
        raise RunError("the source names no objects; check the path, the categories and the limit")
    tasks = scan(
        entries, run.spec, run.filters, run.next_batch, run.shard_objects, known, cache=run.folder / SCAN_CACHE,
        workers=workers, progress=progress,
    )  # fmt: skip
    if not tasks:
        log.info("all %d objects are in the run already", len(entries))
        return run
    refused = sum(task.refusal is not None for task in tasks)
    log.info("%d objects added in %d shards; %d of them refused before rendering", len(tasks),
             len({task.shard for task in tasks}), refused)  # fmt: skip
    return run.add_batch(tasks)
