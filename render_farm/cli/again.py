"""Flags of the commands that do something again: `retry` and `replay`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Talk, Unset
from render_farm.cli.options import ComputeFlags, RunFolder, cores
from render_farm.errors import TRANSIENT


@dataclass(frozen=True)
class Retry:
    """Put failed objects up for another try; `run FOLDER` then renders them. Sealed shards stay as they are."""

    folder: RunFolder
    """The run's folder."""
    reason: tuple[str, ...] = tuple(sorted(TRANSIENT))
    """Reasons of the failures to try again; by default those that may pass."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Replay:
    """Render one object of a run again, with the same cameras and light, and compare it with what is stored."""

    folder: RunFolder
    """The run's folder."""
    uid: Annotated[str, tyro.conf.Positional]
    """The object."""
    out: Path
    """Folder for its orbits."""
    threads: int = field(default_factory=cores)
    """Render threads."""
    hdri_folder: Unset[Path] = None
    """HDR pictures, if the run's light needs them."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """How."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""
