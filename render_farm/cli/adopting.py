"""The command `gobjaverse`: orbits that others rendered become shards."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from render_farm.adopting import adopt_gobjaverse
from render_farm.catalogue.captions import read_captions
from render_farm.cli.options import FilterFlags, Talk, cores, quality_from_text
from render_farm.cli.progress import count_bar
from render_farm.gobjaverse import ORBITS
from render_farm.records import Provenance
from render_farm.shards import build_manifest, open_output

log = logging.getLogger(__name__)


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
    orbits: tuple[str, ...] = tuple(ORBITS)
    """Which of them."""
    depth: Literal["planar", "distance"] = "planar"
    """What its depth channel holds: the authors' own example reads planar z."""
    captions: Path | None = None
    """Cap3D's CSV: uid, caption."""
    shard_objects: int = 256
    """Objects in a shard, about."""
    quality: str = "lossless"
    """Of stored colour pictures: lossless, or WebP quality 1 to 100."""
    processes: int = field(default_factory=cores)
    """Shards at a time."""
    filters: Flags[FilterFlags] = field(default_factory=FilterFlags)
    """What to leave out."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Seal everything, and return what goes to stdout."""
        captions = read_captions(self.captions) if self.captions is not None else {}
        with count_bar("shards", self.talk.quiet) as progress:
            adopt_gobjaverse(
                self.root, self.out, orbits=self.orbits, depth=self.depth, filters=self.filters.filters(),
                known={uid: Provenance(caption=caption, source="G-Objaverse") for uid, caption in captions.items()},
                shard_objects=self.shard_objects, quality=quality_from_text(self.quality), processes=self.processes,
                progress=progress,
            )  # fmt: skip
        made = build_manifest(open_output(self.out))
        for reason, count in made.reasons.items():
            log.warning("%d objects left out: %s", count, reason)
        return f"{made.objects} objects, {made.views} views in {made.shards} shards"
