"""The manifest's three tables: their columns, and the rows that one receipt gives.

objects   one row for each object with orbits       views   one row for each picture       failures   the others
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from engine.files.orbit_codec import image_name
from render_farm.records import ObjectRecord
from render_farm.shards.duplicates import Kinship
from render_farm.shards.receipts import Receipt, Sample

Row = dict[str, Any]
TEXTS = ("caption", "label", "license", "attribution", "source")


def _texts(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string(), nullable=False) for name in names]


def _maybe(kind: pa.DataType, *names: str) -> list[pa.Field]:
    return [pa.field(name, kind) for name in names]


OBJECTS = pa.schema(
    [
        *_texts("uid", "key", "shard", "tar", "sha256", *TEXTS),
        pa.field("seed", pa.uint64(), nullable=False),
        pa.field("orbits", pa.list_(pa.string()), nullable=False),
        pa.field("views", pa.int32(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
        pa.field("scale", pa.float64(), nullable=False),
        pa.field("centre", pa.list_(pa.float64(), 3), nullable=False),
        *_maybe(pa.int64(), "triangles", "objects"),
        *_maybe(pa.string(), "mesh_hash", "textured"),
        *_maybe(pa.bool_(), "animated"),
        *_texts("facts"),
        *_maybe(pa.string(), "picture_hash"),
        *_texts("quality", "cluster"),
        *_maybe(pa.string(), "duplicate_of", "duplicate_by"),
        *_texts("split"),
        pa.field("attempts", pa.int32(), nullable=False),
        *_maybe(pa.float64(), "wall_s", "cpu_s"),
        *_maybe(pa.int64(), "peak_bytes"),
        *_texts("stages", "worker"),
    ]
)
"""facts, quality, stages: JSON, keys sorted. scale, centre: p_normalised = scale * (p_asset - centre)."""

VIEWS = pa.schema(
    [
        *_texts("uid", "orbit"),
        pa.field("view", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("azimuth_deg", "elevation_deg", "distance_m")),
        *(pa.field(name, pa.int32(), nullable=False) for name in ("width", "height")),
        *(pa.field(name, pa.float64(), nullable=False) for name in ("focal_px", "principal_u_px", "principal_v_px")),
        pa.field("T_world_camera", pa.list_(pa.float64(), 16), nullable=False),
        *_maybe(pa.string(), "light"),
        *_maybe(pa.float64(), "depth_scale_m"),
        *_texts("shard", "tar", "rgba"),
        *(pa.field(name, pa.int64(), nullable=False) for name in ("rgba_offset", "rgba_bytes")),
        *_maybe(pa.float64(), "coverage"),
        *_maybe(pa.bool_(), "border"),
        *_texts("split"),
    ]
)
"""T_world_camera: row-major, OpenCV camera axes. light: JSON of render_farm/lights.py. rgba: the picture's name in the
tar; its bytes are those at rgba_offset. coverage: the object's share of the picture. border: it touches the edge."""

FAILURES = pa.schema(
    [
        *_texts("uid", "key", "shard", "sha256", *TEXTS, "reason", "message", "stage", "detail"),
        pa.field("attempts", pa.int32(), nullable=False),
        *_maybe(pa.float64(), "wall_s", "cpu_s"),
        *_maybe(pa.int64(), "peak_bytes"),
        *_texts("facts", "quality", "worker"),
    ]
)

SCHEMAS = {"objects": OBJECTS, "views": VIEWS, "failures": FAILURES}
PIXEL_COLUMNS = {
    "objects": (
        "flags", "picture_hash", "quality", "cluster", "duplicate_of", "duplicate_by", "split",
    ),
    "views": ("depth_scale_m", "rgba_offset", "rgba_bytes", "coverage", "border", "split"),
    "failures": ("message", "detail", "quality"),
}  # fmt: skip
"""Columns that depend on pixels, which two machines need not render alike to the last bit."""
RUN_COLUMNS = {
    "objects": ("attempts", "wall_s", "cpu_s", "peak_bytes", "stages", "worker"),
    "views": (),
    "failures": ("detail", "attempts", "wall_s", "cpu_s", "peak_bytes", "facts", "worker"),
}
"""Columns that depend on the machine and the clock. All others are equal for any two runs of the same input."""


def object_row(receipt: Receipt, record: ObjectRecord, samples: tuple[Sample, ...], kin: Kinship, split: str) -> Row:
    """Return the row of an object with orbits."""
    facts, normalisation = record.facts, samples[0].document["normalisation"]
    return {
        "uid": record.uid, "key": record.key, "shard": receipt.shard, "tar": receipt.tar, "sha256": record.sha256,
        **_provenance(record), "seed": record.seed, "orbits": list(record.orbits),
        "views": sum(len(sample.document["azimuth_deg"]) for sample in samples), "flags": list(record.flags),
        "scale": normalisation["scale"], "centre": normalisation["centre"],
        "triangles": facts.get("triangles"), "objects": facts.get("objects"), "mesh_hash": facts.get("mesh_hash"),
        "textured": None if facts.get("textured") is None else str(facts["textured"]),
        "animated": None if facts.get("animated") is None else bool(facts["animated"]), "facts": _json(facts),
        "picture_hash": record.quality.get("picture_hash"), "quality": _json(record.quality), "cluster": kin.cluster,
        "duplicate_of": kin.duplicate_of, "duplicate_by": kin.duplicate_by, "split": split,
        "attempts": record.attempts, "wall_s": record.wall_s, "cpu_s": record.cpu_s, "peak_bytes": record.peak_bytes,
        "stages": _json(record.stages), "worker": record.worker,
    }  # fmt: skip


def failure_row(receipt: Receipt, record: ObjectRecord) -> Row:
    """Return the row of an object without orbits."""
    refusal = record.refusal
    assert refusal is not None, "seal_shard lets no failure without a reason pass"
    return {
        "uid": record.uid, "key": record.key, "shard": receipt.shard, "sha256": record.sha256, **_provenance(record),
        "reason": refusal.reason, "message": refusal.message, "stage": refusal.stage, "detail": refusal.detail,
        "attempts": record.attempts, "wall_s": record.wall_s, "cpu_s": record.cpu_s, "peak_bytes": record.peak_bytes,
        "facts": _json(record.facts), "quality": _json(record.quality), "worker": record.worker,
    }  # fmt: skip


def view_rows(receipt: Receipt, record: ObjectRecord, sample: Sample, split: str) -> Iterator[Row]:
    """Give the rows of one orbit's pictures. The receipt's checksum vouches for the document: it is not checked again."""
    document = sample.document
    poses, light = document["T_world_camera"], document["renderer"].get("light")
    u, v = document["principal_px"]
    shared = {
        "uid": record.uid, "orbit": sample.orbit, "width": document["width"], "height": document["height"],
        "focal_px": document["focal_px"], "principal_u_px": u, "principal_v_px": v,
        "light": None if light is None else _json(light), "depth_scale_m": document.get("depth_scale_m"),
        "shard": receipt.shard, "tar": receipt.tar, "split": split,
    }  # fmt: skip
    measured = record.quality.get(sample.orbit) or {}
    columns = {
        "azimuth_deg": document["azimuth_deg"], "elevation_deg": _one_or_all(document["elevation_deg"], len(poses)),
        "distance_m": _one_or_all(document["distance_m"], len(poses)),
        "coverage": _measures(measured.get("coverage"), "shares", len(poses)),
        "border": _measures(measured.get("border"), "touches", len(poses)),
    }  # fmt: skip
    members = {member.name: member for member in sample.members}
    for view, pose in enumerate(poses):
        rgba = members[image_name(sample.name, "rgba", view)]
        yield {
            **shared, **{name: values[view] for name, values in columns.items()}, "view": view,
            "T_world_camera": [number for row in pose for number in row], "rgba": rgba.name,
            "rgba_offset": rgba.offset, "rgba_bytes": rgba.size,
        }  # fmt: skip


def _one_or_all(value: float | list[float], count: int) -> list[float]:
    """As orbit/1 has it: a number where all views share it."""
    return value if isinstance(value, list) else [value] * count


def _measures(measures: Mapping[str, Any] | None, name: str, count: int) -> list[Any]:
    """A value for each view where the checks give them, else None for all."""
    values = (measures or {}).get(name)
    return list(values) if isinstance(values, list) and len(values) == count else [None] * count


def _provenance(record: ObjectRecord) -> Row:
    return {name: getattr(record.provenance, name) for name in TEXTS}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True)
