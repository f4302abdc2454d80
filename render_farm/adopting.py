"""Orbits that somebody else rendered become shards: G-Objaverse's folders in, the same shards, receipts and manifest out.

    ROOT/.../UID/campos_512_v4/00000/00000.json ... --> read_gobjaverse --> checks --> staging --> seal_shard

A shard that is sealed is not read again, so a run that was stopped goes on.
"""

import hashlib
import logging
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from engine.command_line import product_version
from engine.errors import OrbitError
from render_farm.catalogue.entry import unique_uids
from render_farm.catalogue.scan import shard_name
from render_farm.checks import examine
from render_farm.errors import RunError
from render_farm.gobjaverse import ORBITS, read_gobjaverse
from render_farm.records import Filters, ObjectRecord, Provenance, Refusal
from render_farm.run.staging import Staging
from render_farm.shards import is_sealed, open_output, seal_shard

log = logging.getLogger(__name__)

VIEWS = "campos_512_v4"
CONTEXT = "gobjaverse"
"""In place of a spec's digest: nobody knows the spec of what others rendered."""


def find_objects(root: Path) -> dict[str, Path]:
    """Return uid -> folder of every object below `root`: the folders that hold `campos_512_v4`.

    G-Objaverse nests them (0/10000/campos_512_v4): the uid is the path, its separators made '_'.

    Raises:
        RunError: there are none.
    """
    found = sorted(_objects(root))
    if not found:
        raise RunError(f"{root}: expected folders of G-Objaverse ({VIEWS}/00000/00000.json ...) in it, found none")
    places = [f"{folder.relative_to(root).as_posix()}.x" for folder in found]  # a suffix, to be taken off
    return dict(zip(unique_uids(places), found, strict=True))


def _objects(root: Path) -> Iterator[Path]:
    """Without a look into the forty folders of each."""
    for base, folders, _ in os.walk(root):
        if VIEWS in folders:
            yield Path(base)
            folders.remove(VIEWS)


def adopt_gobjaverse(
    root: Path,
    out: str,
    *,
    orbits: tuple[str, ...] = tuple(ORBITS),
    depth: Literal["planar", "distance"] = "planar",
    known: Mapping[str, Provenance] | None = None,
    filters: Filters | None = None,
    shard_objects: int = 256,
    quality: int | Literal["lossless"] = "lossless",
    processes: int = 4,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Seal all objects below a folder and return how many orbits' objects succeeded.

    Args:
        root: a downloaded part of G-Objaverse.
        out: folder or fsspec URL.
        orbits: of `render_farm.gobjaverse.ORBITS`.
        depth: what the depth channel holds; see `read_gobjaverse`.
        known: captions and the like by uid.
        filters: what to leave out.
        shard_objects: about how many objects a shard holds.
        quality: of stored colour pictures.
        processes: shards at a time.
        progress: is told of shards done and all.

    Raises:
        RunError: there are no objects, or the output cannot be written.
    """
    objects = find_objects(root)
    count = -(-len(objects) // shard_objects)
    members: dict[str, dict[str, Path]] = defaultdict(dict)
    for uid, folder in objects.items():
        members[shard_name(uid, 0, count)][uid] = folder
    output = open_output(out)
    todo = {shard: found for shard, found in sorted(members.items()) if not is_sealed(output, shard)}
    seal = partial(
        _seal,
        out=out,
        orbits=orbits,
        depth=depth,
        filters=filters or Filters(),
        quality=quality,
    )
    theirs = [{uid: known[uid] for uid in found if uid in known} if known else {} for found in todo.values()]
    done = 0
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for number, succeeded in enumerate(pool.map(seal, todo, todo.values(), theirs)):
            done += succeeded
            if progress is not None:
                progress(len(members) - len(todo) + number + 1, len(members))
    return done


def _seal(shard: str, objects: Mapping[str, Path], known: Mapping[str, Provenance], **settings: Any) -> int:
    with tempfile.TemporaryDirectory(prefix=f"adopt-{shard}.") as place:
        staging = Staging(Path(place))
        records = list(_records(shard, objects, staging, known=known, **settings))
        staged = {record.uid: staging.path(shard, record.uid) for record in records if record.outcome == "done"}
        context = {"spec_digest": CONTEXT, "versions": {"turntable": product_version()}}
        seal_shard(open_output(settings["out"]), shard, records, staged, context=context)
    return len(staged)


def _records(
    shard: str, objects: Mapping[str, Path], staging: Staging, *, out: str, orbits: tuple[str, ...], depth: Any,
    known: Mapping[str, Provenance], filters: Filters, quality: Any,
) -> Iterator[ObjectRecord]:  # fmt: skip
    for uid, folder in sorted(objects.items()):
        digest = _digest(folder)
        record = ObjectRecord(
            uid, hashlib.blake2b(digest.encode(), digest_size=16).hexdigest(), shard, digest,
            known.get(uid, Provenance(source=f"G-Objaverse {folder.name}")), "done", attempts=1, orbits=orbits,
            facts={"warnings": []}, worker="G-Objaverse",
        )  # fmt: skip
        try:
            images = read_gobjaverse(folder, uid, record.provenance, orbits=orbits, depth=depth)
        except OrbitError as error:
            log.warning("%s: %s", uid, error)
            yield replace(record, outcome="failed", orbits=(), refusal=Refusal("malformed", str(error), "reading"))
            continue
        verdict = examine(images, record.facts, filters)
        record = replace(record, quality=verdict.quality, flags=verdict.flags)
        if verdict.refusal is not None:
            yield replace(record, outcome="failed", orbits=(), refusal=verdict.refusal)
            continue
        staging.commit(record, images, quality)
        yield record


def _digest(folder: Path) -> str:
    """Stand-in for the asset's sha256: of all poses and one picture. All pictures are many megabytes."""
    digest = hashlib.sha256()
    for path in [*sorted((folder / VIEWS).glob("*/*.json")), *sorted((folder / VIEWS).glob("00000/00000.png"))]:
        with suppress(OSError):  # reading the object will say so, of this object alone
            digest.update(path.read_bytes())
    return digest.hexdigest()
