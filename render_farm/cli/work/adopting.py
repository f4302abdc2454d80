"""Orbits that others rendered: `gobjaverse`."""

import logging

from render_farm.adopting import adopt_gobjaverse
from render_farm.catalogue.captions import read_captions
from render_farm.cli.adopting import Gobjaverse
from render_farm.cli.work.progress import count_bar
from render_farm.cli.work.wording import count
from render_farm.records import Provenance
from render_farm.shards import build_manifest, open_output

log = logging.getLogger(__name__)


def adopt(flags: Gobjaverse) -> str:
    """Seal everything, and return what goes to stdout."""
    captions = read_captions(flags.captions) if flags.captions is not None else {}
    with count_bar("shards", flags.talk.quiet) as progress:
        adopt_gobjaverse(
            flags.root, flags.out, orbits=flags.orbits, depth=flags.depth, filters=flags.filters,
            known={uid: Provenance(caption=caption, source="G-Objaverse") for uid, caption in captions.items()},
            shard_objects=flags.shard_objects, quality=flags.quality, processes=flags.processes,
            progress=progress,
        )  # fmt: skip
    made = build_manifest(open_output(flags.out))
    for reason, objects in made.reasons.items():
        log.warning("%s left out: %s", count(objects, "object"), reason)
    return f"{count(made.objects, 'object')}, {count(made.views, 'view')} in {count(made.shards, 'shard')}"
