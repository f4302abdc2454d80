"""Objaverse-XL through its own package (objaverse.xl): GitHub, Thingiverse, Smithsonian and Sketchfab.

    annotations (Parquet, one a source) -> chosen rows -> objects fetched -> Entry with the promised sha256

The package gives up as a whole where one download raises: then its rows are tried one by one. The scan compares the
bytes with the sha256 that Objaverse-XL lists: files that changed since are refused, not rendered under a wrong name.
"""

import hashlib
import http.client
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError
from typing import Any, Literal, get_args
from urllib.parse import unquote

import objaverse.xl
import pandas as pd

from render_farm.assets import FORMATS, NOT_ALLOWED
from render_farm.catalogue.entry import Entry, Progress
from render_farm.catalogue.fetching import quietly, raise_if_disk, reason
from render_farm.catalogue.licences import is_allowed, spdx
from render_farm.errors import RunError
from render_farm.records import Provenance, Refusal

LOG = logging.getLogger(__name__)
XlSource = Literal["github", "thingiverse", "smithsonian", "sketchfab"]
COLUMNS = ("fileIdentifier", "source", "license", "fileType", "sha256")
CHUNK = 512
"""Objects that are fetched at a time."""


@dataclass(frozen=True)
class XlChoice:
    """Which objects of Objaverse-XL; with several of these, those that all of them name."""

    sources: tuple[XlSource, ...] = get_args(XlSource)
    """Only these sources' annotations are fetched."""
    alignment: bool = False
    """Only the 1M objects of the alignment subset (GitHub and Sketchfab)."""
    file_types: tuple[str, ...] = tuple(suffix[1:] for suffix in FORMATS)
    """Formats, without the dot."""
    sha256_file: Path | None = None
    """A text file of the wanted objects' sha256, one a line."""
    limit: int | None = None
    """At most so many, the smallest sha256."""
    licences: tuple[str, ...] = ()
    """As records.Filters.licences: objects of others are not fetched, and refused."""


@dataclass(frozen=True)
class _Object:
    identifier: str
    source: str
    license: str
    sha256: str
    attribution: str
    uid: str


def objaverse_xl_entries(
    choice: XlChoice, *, home: Path | None = None, processes: int = 4, progress: Progress | None = None
) -> list[Entry]:
    """Return the chosen objects, fetched, sorted by uid.

    A uid is Sketchfab's own, else the file's sha256, as in Cap3D's captions; where two files have the same bytes, all
    but the first address get a part of its hash.

    Args:
        choice: which.
        home: where annotations and objects are kept; ~/.objaverse by default.
        processes: downloads at a time.
        progress: called after each chunk.

    Raises:
        RunError: an unknown source, annotations that cannot be fetched or lack a column, no object chosen.
    """
    folder = (Path("~/.objaverse").expanduser() if home is None else home).resolve()
    with quietly():
        table = _annotations(choice, folder)
        objects = _objects(table)
        table = table.set_index("fileIdentifier", drop=False)
        wanted = [item for item in objects if is_allowed(item.license, choice.licences)]
        found: dict[str, str] = {}
        failures: dict[str, str] = {}
        for start in range(0, len(wanted), CHUNK):
            _fetch(table, wanted[start : start + CHUNK], folder, processes, found, failures)
            if progress is not None:
                progress(min(start + CHUNK, len(wanted)), len(wanted))
    return [_entry(item, choice.licences, folder, found, failures) for item in objects]


def _annotations(choice: XlChoice, folder: Path) -> Any:
    """The chosen rows, a pandas table."""
    unknown = sorted(set(choice.sources) - set(get_args(XlSource)))
    if unknown or not choice.sources:
        raise RunError(f"sources must be of {', '.join(get_args(XlSource))}, got {unknown[0] if unknown else 'none'!r}")
    tables = []
    for source in choice.sources:
        if choice.alignment and source not in ("github", "sketchfab"):
            continue  # the others have no part in it
        downloader = objaverse.xl.downloaders[source]
        load = downloader.get_alignment_annotations if choice.alignment else downloader.get_annotations
        try:
            table = load(download_dir=str(folder))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise RunError(f"Objaverse-XL: the annotations of {source} cannot be had ({reason(error)}); check the network, or "
                           f"name a folder that holds {source}/{source}.parquet") from error  # fmt: skip
        missing = [name for name in COLUMNS if name not in table.columns]
        if missing:
            raise RunError(f"Objaverse-XL: the annotations of {source} lack the column {missing[0]!r}; found "
                           f"{', '.join(map(str, table.columns))}; remove that file, it is fetched again")  # fmt: skip
        table = table[
            table["fileType"].astype(str).str.lower().isin([kind.lower().lstrip(".") for kind in choice.file_types])
        ]
        tables.append(table[[*COLUMNS, *(["metadata"] if "metadata" in table.columns else [])]])
    if not tables:
        raise RunError("the alignment subset holds objects of github and sketchfab only; choose one of them")
    return _limited(choice, pd.concat(tables, ignore_index=True))


def _limited(choice: XlChoice, table: Any) -> Any:
    if choice.sha256_file is not None:
        try:
            listed = set(choice.sha256_file.read_text(encoding="utf-8-sig").lower().split())
        except (OSError, ValueError) as error:
            raise RunError(f"{choice.sha256_file}: the list of sha256 cannot be read ({reason(error)})") from error
        table = table[table["sha256"].isin(listed)]
    table = table.sort_values(["sha256", "fileIdentifier"], kind="stable").drop_duplicates("fileIdentifier")
    if not len(table):
        raise RunError("no object of Objaverse-XL is of these sources, file types and sha256; choose others")
    return table if choice.limit is None else table.iloc[: choice.limit]


def _objects(table: Any) -> list[_Object]:
    """One for each row; `table` is sorted by sha256, so that equal files stand together."""
    objects: list[_Object] = []
    taken: set[str] = set()
    rows = table.to_dict("records")
    for row in rows:
        identifier, source, sha256 = str(row["fileIdentifier"]), str(row["source"]), str(row["sha256"])
        uid = NOT_ALLOWED.sub("_", identifier.rsplit("/", 1)[-1]) if source == "sketchfab" else sha256
        if uid in taken:
            uid = f"{uid}_{_short(identifier)}"
        taken.add(uid)
        text = row["license"] if isinstance(row["license"], str) else ""
        objects.append(_Object(identifier, source, spdx(text), sha256, _author(row, source), uid))
    return sorted(objects, key=lambda item: item.uid)


def _short(identifier: str) -> str:
    return hashlib.blake2b(identifier.encode(), digest_size=6).hexdigest()


def _author(row: dict[str, Any], source: str) -> str:
    if source == "github":
        return str(row["fileIdentifier"]).split("/")[3]
    try:
        metadata = json.loads(row.get("metadata") or "{}")
    except (TypeError, ValueError):
        return ""
    return str(metadata.get("author") or metadata.get("creator") or "") if isinstance(metadata, dict) else ""


def _fetch(
    table: Any,
    objects: Sequence[_Object],
    folder: Path,
    processes: int,
    found: dict[str, str],
    failures: dict[str, str],
) -> None:
    """Fetch a chunk; what the package does not return is looked for on disk, and else tried again alone."""
    missing = [item for item in objects if not _stored(item, folder, found)]
    if not missing:
        return
    rows = table.loc[[item.identifier for item in missing]]
    try:
        found.update(_download(rows, folder, processes))
        return
    except (OSError, http.client.HTTPException, ValueError, AssertionError, SubprocessError) as error:
        raise_if_disk(error)
        LOG.warning("Objaverse-XL gave up on %d objects (%s): they are tried one by one", len(missing), reason(error))
    for item in missing:
        if _stored(item, folder, found):
            continue  # it came with another's repository
        try:
            found.update(_download(rows.loc[[item.identifier]], folder, 1))
            _stored(item, folder, found)
        except (OSError, http.client.HTTPException, ValueError, AssertionError, SubprocessError) as error:
            raise_if_disk(error)
            failures[item.identifier] = reason(error)


def _download(rows: Any, folder: Path, processes: int) -> dict[str, str]:
    """Whole repositories are kept, since models name textures and buffers beside them."""
    done: dict[str, str] = objaverse.xl.download_objects(
        rows.reset_index(drop=True), download_dir=str(folder), processes=processes, save_repo_format="files"
    )
    return done


def _stored(item: _Object, folder: Path, found: dict[str, str]) -> bool:
    """GitHub's files of an earlier run: the package passes over their repository without naming them."""
    if item.source == "github":
        place = _repository_path(item, folder)
        if place is not None and place.is_file():
            found[item.identifier] = str(place)
    return item.identifier in found


def _repository_path(item: _Object, folder: Path) -> Path | None:
    """https://github.com/ORG/REPO/blob/COMMIT/PATH, as the package lays it out."""
    parts = item.identifier.split("/")
    if len(parts) < 8 or ".." in parts:
        return None
    return folder / "github" / "repos" / parts[3] / parts[4] / "/".join(parts[7:])


def _entry(
    item: _Object, licences: Sequence[str], folder: Path, found: dict[str, str], failures: dict[str, str]
) -> Entry:
    known = Provenance(license=item.license, attribution=item.attribution, source=item.identifier)
    place, problem = found.get(item.identifier), None
    if not is_allowed(item.license, licences):
        problem = Refusal("licence", f"its licence {item.license or 'is unknown, which'} is none of those wanted")
    elif place is None or not Path(place).is_file():
        why = failures.get(item.identifier, "it is no longer at its address")
        problem = Refusal("fetch-failed", f"cannot be fetched from {item.source}: {why}", "fetching")
    path = Path(place) if place is not None else folder / unquote(item.identifier.rsplit("/", 1)[-1])
    return Entry(item.uid, path, known, problem, item.sha256)
