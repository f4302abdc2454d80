"""A list of assets: CSV, Parquet or JSON, one row an object.

Columns: `path` (or `file`), absolute or relative to the list; and if they are there `uid`, `caption`, `label`,
`license`, `attribution`, `source` (or `source_url`), `sha256`. Others are passed over.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from render_farm.assets import check_uid
from render_farm.catalogue.entry import Entry, unique_uids
from render_farm.catalogue.licences import spdx
from render_farm.errors import RunError
from render_farm.records import Provenance

Row = tuple[str, dict[str, Any]]
"""Where it stands ('line 3', 'row 2'), and its columns."""
ALIASES = {"file": "path", "licence": "license", "source_url": "source"}
SUFFIXES = (".csv", ".tsv", ".parquet", ".json")


def table_entries(path: Path) -> list[Entry]:
    """Return the objects of a list, in its order.

    Raises:
        RunError: the list cannot be read, or a row is wrong; the message names line and column.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RunError(
            f"{path.name}: expected a list of assets ending in {' '.join(SUFFIXES)}, found {suffix or 'no suffix'!r}"
        )
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".parquet": _parquet_rows, ".json": _json_rows}
    try:
        rows = [(place, _renamed(row)) for place, row in readers[suffix](path)]
    except UnicodeDecodeError as error:
        raise RunError(f"{path.name}: expected UTF-8, found the byte {error.object[error.start]:#04x} at {error.start}; "
                       "save it as UTF-8") from error  # fmt: skip
    except (OSError, pa.ArrowException, ValueError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise RunError(f"{path}: the list cannot be read: {reason}; check the path, or export it again") from error
    if not rows:
        raise RunError(f"{path.name}: the list is empty; expected one row an object")
    return _entries(path, rows)


def _entries(path: Path, rows: list[Row]) -> list[Entry]:
    texts = [(place, {name: _text(path, place, name, value) for name, value in row.items()}) for place, row in rows]
    for place, row in texts:
        if not row.get("path"):
            raise RunError(f"{path.name}: {place}: column 'path' is {'empty' if 'path' in row else 'missing'}; name the "
                           "model's file there")  # fmt: skip
        if "://" in row["path"]:
            raise RunError(f"{path.name}: {place}: column 'path' holds the address {row['path']!r}; fetch the file and name "
                           "it")  # fmt: skip
    derived = unique_uids([row["path"] for _, row in texts])
    folder, entries = path.resolve().parent, []
    seen: dict[str, str] = {}
    for (place, row), own in zip(texts, derived, strict=True):
        uid = row.get("uid") or own
        problem = check_uid(uid)
        if problem is not None:
            raise RunError(f"{path.name}: {place}: column 'uid': {problem}")
        if uid in seen:
            raise RunError(
                f"{path.name}: {place}: the uid {uid!r} stands in {seen[uid]} as well; give every object its own"
            )
        seen[uid] = place
        known = Provenance(
            row.get("caption", ""), row.get("label", ""), spdx(row.get("license", "")), row.get("attribution", ""),
            row.get("source", ""),
        )  # fmt: skip
        entries.append(Entry(uid, _file(folder, row["path"]), known, sha256=row.get("sha256", "").lower()))
    return entries


def _file(folder: Path, place: str) -> Path:
    """A list made on Windows may part folders with backslashes, which are letters of a name elsewhere."""
    path = folder / place
    return folder / place.replace("\\", "/") if "\\" in place and not os.path.lexists(path) else path


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",", strict=True)
        names = [name.strip() for name in next(reader, [])]
        _check_columns(path, names)
        for row in reader:
            if len(row) not in (0, len(names)):
                raise RunError(f"{path.name}: line {reader.line_num}: expected {len(names)} columns as in line 1, found "
                               f"{len(row)}; put texts with commas in quotes")  # fmt: skip
            if row:
                yield f"line {reader.line_num}", dict(zip(names, row, strict=True))


def _parquet_rows(path: Path) -> Iterator[Row]:
    table = pq.read_table(path)
    _check_columns(path, table.schema.names)
    known = [name for name in table.schema.names if ALIASES.get(name, name) in FIELDS]
    for index, row in enumerate(table.select(known).to_pylist()):
        yield f"row {index + 1}", row


def _json_rows(path: Path) -> Iterator[Row]:
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, list) or not all(isinstance(row, dict) for row in document):
        raise RunError(f"{path.name}: expected a JSON list of objects, one an asset; found {type(document).__name__}")
    for index, row in enumerate(document):
        yield f"item {index + 1}", row


FIELDS = ("path", "uid", "caption", "label", "license", "attribution", "source", "sha256")


def _check_columns(path: Path, names: list[str]) -> None:
    if "path" not in [ALIASES.get(name, name) for name in names]:
        raise RunError(f"{path.name}: expected a column 'path', found {', '.join(map(repr, names)) or 'no columns'}; name "
                       "the models' files there")  # fmt: skip


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    """Only our columns; a name of ours comes before its alias."""
    named = {ALIASES.get(name, name): value for name, value in row.items() if name in ALIASES}
    return {name: value for name, value in (named | row).items() if name in FIELDS}


def _text(path: Path, place: str, name: str, value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RunError(f"{path.name}: {place}: column {name!r} must hold text, found {value!r}")
    return value if name == "path" else " ".join(value.split())
