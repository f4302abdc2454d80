"""Flags of the command `gobjaverse`: orbits that others rendered become shards."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Talk, Unset
from render_farm.cli.options import Quality, cores
from render_farm.records import Filters

Orbit = Literal["gobjaverse_ring1", "gobjaverse_poles", "gobjaverse_ring2"]


@dataclass(frozen=True)
class Gobjaverse:
    """Turn downloaded folders of G-Objaverse into shards, receipts and a manifest, as if rendered here.

    Its 24-view ring becomes the orbit gobjaverse_ring1, its twelve other views gobjaverse_ring2, top and bottom
    gobjaverse_poles. Prints how many objects there are.
    """

    root: Annotated[Path, tyro.conf.Positional]
    """Folder with objects at any depth: .../UID/campos_512_v4/00000/00000.json"""
    out: str
    """Folder or URL for the shards."""
    orbits: tuple[Orbit, ...] = get_args(Orbit)
    """Which of them."""
    depth: Literal["planar", "distance"] = "planar"
    """What its depth channel holds: the authors' own example reads planar z."""
    captions: Unset[Path] = None
    """Cap3D's CSV: uid, caption."""
    shard_objects: int = 256
    """Objects in a shard, about."""
    quality: Quality = "lossless"
    """Of stored colour pictures: lossless, or WebP quality 1 to 100."""
    processes: int = field(default_factory=cores)
    """Shards at a time."""
    filters: Flags[Filters] = field(default_factory=Filters)
    """What to leave out."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""
