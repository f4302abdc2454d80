"""Flags of the commands that look at a run: `status`, `failures`, `verify`, `manifest`, `report`, `export`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Several, Talk
from render_farm.cli.options import RunFolder

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


@dataclass(frozen=True)
class Failures:
    """List the objects that have no orbits, or count them by reason, stage or message."""

    folder: RunFolder
    """The run's folder."""
    by: Literal["object", "reason", "stage", "message"] = "object"
    """What to group by; object lists each one with its message."""
    reason: Several[str] = ()
    """Only these reasons."""
    detail: bool = False
    """With the last words of the child, for each object."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Verify:
    """Check all that is stored: hashes, every picture, every camera against the spec. Exit status 1 if anything is wrong."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    shallow: bool = False
    """Receipts and hashes of tables only: no tar is read."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Manifest:
    """Merge the receipts into the manifest: what `run` does at its end, for runs on a cluster."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Report:
    """Write the report: contact sheets, failures with their reasons, where the time went. Prints its address."""

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    most_sheets: int = 64
    """Shards that get contact sheets, spread evenly over all."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Export:
    """Write the orbits for other programs; a run that was cut off goes on. Prints the folder.

    The shards themselves are WebDataset tars and need no export.
    """

    place: RunOrOutput
    """The run's folder, or the folder or URL that holds its shards."""
    kind: Literal["nerfstudio", "opencv", "parquet"]
    """nerfstudio: transforms.json; opencv: cameras.json; parquet: Hugging Face datasets."""
    target: Path
    """Folder to write to."""
    uids: Several[str] = ()
    """Only these objects."""
    without_duplicates: bool = False
    """Only the first object of each cluster of duplicates; always so in runs with --duplicates refuse."""
    image_format: Literal["webp", "png"] = "webp"
    """Of the pictures."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""
