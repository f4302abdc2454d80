"""Flags of the commands about one object: `render` and `example`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Talk, Unset
from render_farm.cli.options import ComputeFlags, SpecFlags, cores
from render_farm.records import Provenance


@dataclass(frozen=True)
class Render:
    """Render the orbits of one model: posed RGBA views with depth, normals and base colour.

    Prints the path of each orbit's json. Whole orbits of the same model and settings are found and kept.
    """

    asset: Annotated[Path, tyro.conf.Positional]
    """The model: .glb .gltf .obj .fbx .ply .stl .usd .usda .usdc .usdz .dae .abc .blend"""
    out: Path
    """Folder for the orbits."""
    uid: Unset[str] = None
    """The object's id in file names; by default the model's name."""
    threads: int = field(default_factory=cores)
    """Render threads."""
    spec: Flags[SpecFlags] = field(default_factory=SpecFlags)
    """What to render."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """How."""
    provenance: Flags[Provenance] = field(default_factory=Provenance)
    """What is known about the object."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Example:
    """Make the project's own example object, a toy lighthouse, as a .glb. Prints its path."""

    out: Path
    """The .glb to write."""
    threads: int = field(default_factory=cores)
    """Threads for Blender."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""
