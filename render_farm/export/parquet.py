"""Hugging Face Parquet: TARGET/data/SPLIT-SHARD.parquet, one row a view, pictures inside.

The schema carries `datasets` features, so that `load_dataset("parquet", data_files=...)` and the dataset viewer decode
the pictures. A file is whole or not there; one object is in memory at a time.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.files import atomic_path
from engine.files.orbit_codec import EXTENSIONS
from render_farm.errors import RunError
from render_farm.export.selection import Selected, select
from render_farm.shards import Output, Sample
from render_farm.shards.tables import Row, view_rows

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS: dict[str, pa.DataType] = {
    "uid": pa.string(), "orbit": pa.string(), "view": pa.int32(), "image": IMAGE,
    **{kind: IMAGE for kind in EXTENSIONS if kind != "rgba"},
    "width": pa.int32(), "height": pa.int32(), "focal_px": pa.float64(), "principal_u_px": pa.float64(),
    "principal_v_px": pa.float64(), "T_world_camera": pa.list_(pa.float64()), "azimuth_deg": pa.float64(),
    "elevation_deg": pa.float64(), "distance_m": pa.float64(), "depth_scale_m": pa.float64(), "light": pa.string(),
    "caption": pa.string(), "label": pa.string(), "license": pa.string(), "attribution": pa.string(),
    "source": pa.string(),
}  # fmt: skip
"""image: sRGB with straight alpha. depth: 16-bit steps of depth_scale_m. T_world_camera: 16 numbers, row-major."""
MADE_OF = b"turntable.made_of"


def write_shards(
    output: Output, target: Path, rows: Iterable[Row], progress: Callable[[int], None] | None = None
) -> list[Path]:
    """Write a file for every split and shard, and return their paths; those that are there already are kept."""
    ordered = sorted(rows, key=lambda row: (row["shard"], row["split"], row["uid"]))
    _check_alone(target / "data", {_file_name(row) for row in ordered})
    paths = []
    for _, group in groupby(ordered, key=lambda row: (row["shard"], row["split"])):
        members = list(group)
        path = target / "data" / _file_name(members[0])
        chosen = list(select(output, members))
        made_of = _made_of(chosen)
        if not _is_done(path, made_of):
            with atomic_path(path) as partial:
                _write(partial, output, chosen, made_of)
        paths.append(path)
        if progress:
            progress(len(members))
    return paths


def _file_name(row: Row) -> str:
    return f"{row['split']}-{row['shard']}.parquet"


def _check_alone(folder: Path, names: set[str]) -> None:
    """Loaders take every file of the folder: one of another selection would add its objects silently."""
    foreign = sorted(path.name for path in folder.glob("*.parquet") if path.name not in names)
    if foreign:
        raise RunError(f"{folder / foreign[0]}: belongs to another export ({len(foreign)} such files); choose an empty folder "
                       "or remove them")  # fmt: skip


def schema(made_of: str = "") -> pa.Schema:
    """Return the columns with the features that `datasets` reads."""
    features = {name: _feature(kind) for name, kind in COLUMNS.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), MADE_OF: made_of}
    return pa.schema([pa.field(name, kind) for name, kind in COLUMNS.items()], metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {
            "feature": {"dtype": "float64", "_type": "Value"},
            "_type": "Sequence",
        }  # old and new versions read this
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _made_of(chosen: list[Selected]) -> str:
    """Names the content of a file: the shard's bytes, the objects and their texts."""
    text = json.dumps([chosen[0].receipt.sha256, [item.row for item in chosen]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_done(path: Path, made_of: str) -> bool:
    try:
        metadata: Mapping[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return False
    return metadata.get(MADE_OF) == made_of.encode()


def _write(path: Path, output: Output, chosen: list[Selected], made_of: str) -> None:
    columns = schema(made_of)
    with pq.ParquetWriter(path, columns, compression="none", version="2.6", store_schema=True) as writer:
        for selected in chosen:  # pictures are compressed already
            for sample in selected.samples:
                writer.write_table(pa.Table.from_pylist(_rows(output, selected, sample), columns))


def _rows(output: Output, selected: Selected, sample: Sample) -> list[Row]:
    parts = selected.parts(output, sample)
    record = next(record for record in selected.receipt.records if record.uid == selected.uid)
    rows = []
    for view in view_rows(selected.receipt, record, sample, selected.row["split"]):
        images = {kind: _image(sample, parts, kind, view["view"]) for kind in EXTENSIONS}
        row = {name: value for name, value in {**selected.row, **view}.items() if name in COLUMNS}
        rows.append({**row, **images, "image": images["rgba"]})
    return [{name: row[name] for name in COLUMNS} for row in rows]


def _image(sample: Sample, parts: Mapping[str, bytes], kind: str, view: int) -> dict[str, Any] | None:
    member = sample.member(kind, view)
    return None if member is None else {"bytes": parts[member.name], "path": member.name}
