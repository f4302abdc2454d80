"""What the report tells, as typed rows: the manifest of an output in, `ReportData` out."""

import json
import math
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from render_farm.shards import Output, read_manifest, read_rows

MEASURES: Mapping[str, tuple[str, ...]] = {
    "coverage": ("coverage", "mean"),
    "coverage_min": ("coverage", "min"),
    "border": ("border", "share"),
    "white": ("exposure", "white_share"),
    "luminance": ("exposure", "luminance"),
    "agreement": ("agreement", "median_px"),
    "worst_view": ("agreement", "worst_view_px"),
    "depth_missing": ("depth", "missing_share"),
    "away": ("normals", "away_share"),
}
"""Name here -> where render_farm.checks puts it below an orbit's name."""
OBJECT_COLUMNS = [
    "uid", "shard", "label", "caption", "license", "attribution", "source", "orbits", "flags", "quality", "stages",
    "wall_s", "cpu_s", "peak_bytes", "duplicate_of", "duplicate_by",
]  # fmt: skip
FAILURE_COLUMNS = ["uid", "shard", "label", "reason", "message", "stage", "detail", "attempts", "wall_s"]


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object with orbits."""

    uid: str
    """Its id."""
    shard: str
    """Where it lies."""
    label: str
    """Its class."""
    caption: str
    """Untrusted, like all texts here."""
    license: str
    """SPDX id."""
    attribution: str
    """Who made it."""
    source: str
    """Where it comes from."""
    flags: tuple[str, ...]
    """Reasons that apply."""
    wall_s: float
    """Of its job."""
    cpu_s: float
    """Of its job."""
    peak_bytes: int
    """Of the worker so far."""
    duplicate_of: str
    """Another uid; empty for none."""
    duplicate_by: str
    """file, mesh or picture; empty for none."""
    orbit: str
    """Name of its first orbit."""


@dataclass(frozen=True)
class FailureRow:
    """One object without."""

    uid: str
    """Its id."""
    shard: str
    """Where its record lies."""
    reason: str
    """One of render_farm.errors.Reason."""
    message: str
    """One line."""
    stage: str
    """What was being done."""
    detail: str
    """Last words of the child."""
    attempts: int
    """How often it was tried."""


@dataclass(frozen=True, slots=True)
class Picture:
    """Where one colour picture lies."""

    uid: str
    """Of the object."""
    view: int
    """Index in its orbit."""
    tar: str
    """Name in the output."""
    offset: int
    """Of its first byte."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class ReportData:
    """Everything that the page shows but pictures."""

    objects: tuple[ObjectRow, ...]
    """By shard and uid."""
    measures: Mapping[str, Float[np.ndarray, " n"]]
    """Of each object's first orbit, by the names of MEASURES; not a number where it was not measured."""
    stages: Mapping[str, float]
    """Seconds of all objects together."""
    failures: tuple[FailureRow, ...]
    """By reason and uid."""
    manifest: Mapping[str, Any]
    """manifest.json."""


def read_report_data(output: Output) -> ReportData:
    """Read the manifest's tables. Raises RunError where there is none or it is damaged.

    Of a million objects the rows take half a gigabyte; numbers are kept in arrays, which take a twentieth of their JSON.
    """
    manifest = read_manifest(output)
    objects: list[ObjectRow] = []
    measures = {name: array("d") for name in MEASURES}
    stages: Counter[str] = Counter()
    for row in read_rows(output, "objects", OBJECT_COLUMNS):
        objects.append(_object(row))
        stages.update(_numbers(json.loads(row["stages"])))
        measured = json.loads(row["quality"]).get(row["orbits"][0]) or {}
        for name, (group, key) in MEASURES.items():
            measures[name].append(_number((measured.get(group) or {}).get(key)))
    order = sorted(range(len(objects)), key=lambda index: (objects[index].shard, objects[index].uid))
    failures = [_failure(row) for row in read_rows(output, "failures", FAILURE_COLUMNS)]
    return ReportData(
        tuple(objects[index] for index in order),
        {name: np.frombuffer(values, np.float64)[order] for name, values in measures.items()},
        dict(stages),
        tuple(sorted(failures, key=lambda row: (row.reason, row.uid))),
        manifest,
    )


def read_pictures(output: Output, uids: Mapping[str, str], shares: tuple[float, ...]) -> dict[str, list[Picture]]:
    """Return pictures of objects.

    Args:
        output: where they lie.
        uids: object to orbit.
        shares: which views, as shares of the orbit from its first view.
    """
    columns = ["uid", "orbit", "view", "tar", "rgba_offset", "rgba_bytes"]
    found: dict[str, list[Picture]] = {}
    for row in read_rows(output, "views", columns, uids=list(uids)):
        if uids.get(row["uid"]) == row["orbit"]:
            picture = Picture(row["uid"], row["view"], row["tar"], row["rgba_offset"], row["rgba_bytes"])
            found.setdefault(row["uid"], []).append(picture)
    return {uid: _spread(sorted(pictures, key=lambda p: p.view), shares) for uid, pictures in found.items()}


def _spread(pictures: list[Picture], shares: tuple[float, ...]) -> list[Picture]:
    chosen = dict.fromkeys(int(share * len(pictures)) for share in shares)
    return [pictures[index] for index in chosen]


def _object(row: Mapping[str, Any]) -> ObjectRow:
    """Texts that many objects share are kept once."""
    return ObjectRow(
        row["uid"], sys.intern(row["shard"]), sys.intern(row["label"]), row["caption"], sys.intern(row["license"]),
        row["attribution"], row["source"], tuple(map(sys.intern, row["flags"])), float(row["wall_s"] or 0),
        float(row["cpu_s"] or 0), int(row["peak_bytes"] or 0), row["duplicate_of"] or "",
        sys.intern(row["duplicate_by"] or ""), sys.intern(row["orbits"][0]),
    )  # fmt: skip


def _failure(row: Mapping[str, Any]) -> FailureRow:
    return FailureRow(
        row["uid"], row["shard"], row["reason"], row["message"], row["stage"], row["detail"], int(row["attempts"] or 0)
    )


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
