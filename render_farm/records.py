"""What the rooms of the farm hand to each other about one object: the task before it, the record after it.

catalogue -> Task -> scheduler, worker, checks -> ObjectRecord -> shards -> manifest
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from render_farm.errors import REASONS


@dataclass(frozen=True)
class Provenance:
    """What is known about an object beyond its shape; goes into the orbit's json and the manifest."""

    caption: str = ""
    """One sentence."""
    label: str = ""
    """Its class."""
    license: str = ""
    """SPDX id."""
    attribution: str = ""
    """Who made it."""
    source: str = ""
    """Where it comes from: a URL, or the file's name."""


@dataclass(frozen=True)
class Refusal:
    """Why an object has no orbit."""

    reason: str
    """One of render_farm.errors.Reason."""
    message: str
    """One line."""
    stage: str = ""
    """What was being done."""
    detail: str = ""
    """The end of the child's stderr."""

    def __post_init__(self) -> None:
        if self.reason not in REASONS:
            raise ValueError(f"reason must be one of {sorted(REASONS)}, got {self.reason!r}")


@dataclass(frozen=True)
class Task:
    """One object of a run, frozen before the run starts."""

    uid: str
    """Unique in the run: letters, digits, '_', '-'."""
    path: str
    """Absolute path of the model."""
    suffix: str
    """Format: lower case, with the dot."""
    sha256: str
    """Of the file; empty where it could not be read (then there is a refusal)."""
    size_bytes: int
    """Of the file."""
    key: str
    """spec.task_key; for an unreadable file, of its uid."""
    shard: str
    """Where it will be stored: BATCH-NUMBER, such as 000-000012."""
    provenance: Provenance = field(default_factory=Provenance)
    """Carried along."""
    refusal: Refusal | None = None
    """Set where the object is refused before Blender is started (broken header, duplicate file, licence)."""


@dataclass(frozen=True)
class ObjectRecord:
    """What became of one task: whole orbits, or a refusal. Staged as record.json, kept in receipts and manifest."""

    uid: str
    """Of the task."""
    key: str
    """Of the task."""
    shard: str
    """Of the task."""
    sha256: str
    """Of the asset."""
    provenance: Provenance
    """Of the task."""
    outcome: Literal["done", "failed"]
    """done: every orbit is there, checked."""
    refusal: Refusal | None = None
    """Set where it failed."""
    attempts: int = 0
    """How often Blender was tried."""
    seed: int = 0
    """spec.task_seed."""
    orbits: tuple[str, ...] = ()
    """Names of the orbits, in order."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What Blender found: scale, centre, triangles, objects, mesh_hash, textured, animated, warnings... JSON."""
    quality: Mapping[str, Any] = field(default_factory=dict)
    """What the checks measured, by orbit name; and `picture_hash`. JSON. Depends on pixels."""
    flags: tuple[str, ...] = ()
    """Reasons that apply but do not refuse under the run's filters: cropped, over-exposed..."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each stage of the last attempt: import_s, normalise_s, render_s, write_s, convert_s, check_s, ..."""
    wall_s: float = 0.0
    """From handing the job to a worker until its last view, last attempt."""
    cpu_s: float = 0.0
    """CPU seconds of the child, last attempt."""
    peak_bytes: int = 0
    """Peak resident memory of the child so far."""
    worker: str = ""
    """Blender version and device."""

    def to_json(self) -> str:
        """Return it as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "ObjectRecord":
        """Read it back."""
        return ObjectRecord.from_dict(json.loads(text))

    @staticmethod
    def from_dict(fields: Mapping[str, Any]) -> "ObjectRecord":
        """Read it from the object that `to_json` writes."""
        document = dict(fields)
        refusal = document.pop("refusal")
        return ObjectRecord(
            **document | {
                "provenance": Provenance(**document["provenance"]), "orbits": tuple(document["orbits"]),
                "flags": tuple(document["flags"]), "refusal": None if refusal is None else Refusal(**refusal),
            }
        )  # fmt: skip


@dataclass(frozen=True)
class Filters:
    """Which objects a run leaves out. Not part of the render spec: no pixel depends on it.

    keep: nothing; flag: say it in the manifest; refuse: the object ends with the reason of that name.
    """

    untextured: Literal["keep", "plain", "refuse"] = "keep"
    """plain: refuse objects of one plain colour; refuse: all without image texture or vertex colour, as VideoMV did."""
    tiny_coverage: float = 0.005
    """Refuse as `tiny` if the object covers less than this share of its average picture."""
    cropped: Literal["keep", "flag", "refuse"] = "flag"
    """The object touches the border of a picture."""
    over_exposed: Literal["keep", "flag", "refuse"] = "flag"
    """More than --white-share of an average picture's object is clipped to white."""
    white_share: float = 0.6
    """Of an average picture's object: with more than this share clipped to white, --over-exposed applies."""
    duplicates: Literal["keep", "file", "flag", "refuse"] = "flag"
    """file: equal files are rendered once; flag: lookalikes are named in the manifest too; refuse: not exported either."""
    licences: tuple[str, ...] = ()
    """SPDX ids that are allowed, with * at the end as in CC-BY*, ? for unknown ones; by default all are."""


RECORD_NAME = "record.json"
"""Beside the orbits of a staged object; written last."""


def read_record(folder: Path) -> ObjectRecord:
    """Read the record of a staged object."""
    return ObjectRecord.from_json((folder / RECORD_NAME).read_text(encoding="utf-8"))
