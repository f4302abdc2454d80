"""Entries in, the frozen tasks of a batch out: hashed, headers checked, duplicates and licences refused::

    entries -> not yet in the run -> hash, header (threads, cached) -> licence, duplicates -> key, shard -> [Task]

The same entries give the same tasks in the same order, however many threads there are and however they come in.
"""

import hashlib
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from render_farm.assets import CHECKS_VERSION, check_uid, load_asset, sha256_of
from render_farm.catalogue.entry import Entry, Progress, plain_text
from render_farm.catalogue.file_cache import FileCache, Finding
from render_farm.catalogue.licences import is_allowed
from render_farm.errors import FarmError, RunError
from render_farm.records import Filters, Provenance, Refusal, Task
from render_farm.spec import AssetPolicy, RenderSpec, task_key

LOG = logging.getLogger(__name__)
AHEAD = 64
"""Files handed to the threads at a time, for each of them."""
STAGE = "scanning"


@dataclass(frozen=True)
class _Seen:
    """One entry's file."""

    entry: Entry
    sha256: str
    size_bytes: int
    refusal: Refusal | None


def scan(
    entries: Iterable[Entry],
    spec: RenderSpec,
    filters: Filters,
    batch: int,
    shard_objects: int,
    known: Mapping[str, str],
    *,
    retry: Collection[str] = (),
    cache: Path | None = None,
    workers: int = 4,
    progress: Progress | None = None,
) -> list[Task]:
    """Return the tasks of one batch, sorted by shard and uid.

    The key is spec.task_key of the file. Of a refused object, and of every object where duplicates are kept, it is that
    of file and uid: two objects of one batch may have the same bytes, but never the same key.

    The shard is BATCH-NUMBER, the number a hash of the uid modulo ceil(objects / shard_objects): it depends on which
    objects there are, never on their order.

    Args:
        entries: the objects; refusals included, each becomes a task.
        spec: what is to be rendered.
        filters: licences and duplicates are applied here.
        batch: its number, 0 to 999.
        shard_objects: objects in a shard, on average.
        known: uid -> sha256 of the run's earlier batches; these uids are passed over.
        retry: uids that are taken although the run has them.
        cache: where to keep hashes for the next scan; None keeps none.
        workers: threads.
        progress: called now and then.

    Raises:
        RunError: a uid comes twice or is malformed.
    """
    if shard_objects < 1 or not 0 <= batch <= 999:
        raise ValueError(
            f"shard_objects must be at least 1 and batch within 0 and 999, got {shard_objects} and {batch}"
        )
    wanted = _wanted(entries, known, retry)
    looks = _look_at_all(wanted, spec.assets, filters, cache, workers, progress)
    seen = sorted(looks, key=lambda one: one.entry.uid)
    if filters.duplicates != "keep":
        seen = _refuse_duplicates(seen, known, retry)
    shards = -(-len(seen) // shard_objects)
    tasks = [_task(one, spec, filters, shard_name(one.entry.uid, batch, shards)) for one in seen]
    return sorted(tasks, key=lambda task: (task.shard, task.uid))


def shard_name(uid: str, batch: int, shards: int) -> str:
    """Return the shard of an object in a batch of so many shards."""
    number = int.from_bytes(hashlib.blake2b(uid.encode(), digest_size=8).digest(), "big") % shards
    return f"{batch:03d}-{number:06d}"


def _wanted(entries: Iterable[Entry], known: Mapping[str, str], retry: Collection[str]) -> list[Entry]:
    wanted: dict[str, Entry] = {}
    again, retried = 0, set(retry)
    for entry in entries:
        problem = check_uid(entry.uid)
        if problem is not None:
            raise RunError(f"{entry.path}: {problem}")
        if entry.uid in wanted:
            raise RunError(f"the uid {entry.uid!r} belongs to two objects, {wanted[entry.uid].path} and {entry.path}; give "
                           "every object its own")  # fmt: skip
        if entry.uid in known and entry.uid not in retried:
            again += 1
        else:
            wanted[entry.uid] = entry
    if again:
        LOG.info("%d objects are in this run already and are passed over", again)
    return list(wanted.values())


def _look_at_all(
    entries: list[Entry],
    policy: AssetPolicy,
    filters: Filters,
    cache: Path | None,
    workers: int,
    progress: Progress | None,
) -> Iterator[_Seen]:
    """Hash and check in threads, a window at a time: hashing lets go of the interpreter."""
    known = FileCache(cache)
    window = AHEAD * workers
    try:
        with ThreadPoolExecutor(workers) as pool:
            for start in range(0, len(entries), window):
                yield from _look_at_window(entries[start : start + window], policy, filters, known, pool)
                if progress is not None:
                    progress(min(start + window, len(entries)), len(entries))
    finally:
        known.close()


def _look_at_window(
    entries: list[Entry], policy: AssetPolicy, filters: Filters, cache: FileCache, pool: ThreadPoolExecutor
) -> list[_Seen]:
    checks = f"{CHECKS_VERSION} {policy.max_triangles} {policy.max_file_bytes}"
    futures: list[tuple[Entry, tuple[str, int, int, str] | None, Future[Finding] | Finding]] = []
    for entry in entries:
        refusal = _refused_before(entry, filters)
        if refusal is not None:
            futures.append((entry, None, Finding("", refusal.reason, refusal.message)))
            continue
        place = _place(entry.path, checks)
        found = None if place is None or _has_parts(entry.path) else cache.find(*place)
        futures.append((entry, place, found or pool.submit(_look, entry.path, policy)))
    done = [
        (entry, place, f.result() if isinstance(f, Future) else f, isinstance(f, Future)) for entry, place, f in futures
    ]
    cache.keep(
        (*place, finding)
        for entry, place, finding, fresh in done
        if fresh and place is not None and not _has_parts(entry.path)
    )
    return [_seen(entry, finding, 0 if place is None else place[1]) for entry, place, finding, _ in done]


def _refused_before(entry: Entry, filters: Filters) -> Refusal | None:
    """What needs no look at the file."""
    if entry.problem is not None:
        return entry.problem
    shown = plain_text(str(entry.path))
    if shown != str(entry.path):
        return Refusal("malformed", f"the file name {shown!r} is not Unicode; rename it", STAGE)
    if not is_allowed(entry.provenance.license, filters.licences):
        return Refusal("licence", f"{entry.uid}: expected a licence of {' '.join(filters.licences)}, found "
                       f"{entry.provenance.license or 'an unknown one'}; leave it out, or allow that licence", STAGE)  # fmt: skip
    return None


def _place(path: Path, checks: str) -> tuple[str, int, int, str] | None:
    """Where the cache keeps a file."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # not there, or no name that a file can have
        return None
    return str(path), status.st_size, status.st_mtime_ns, checks


def _has_parts(path: Path) -> bool:
    """The buffers of a .gltf may change while it does not: nothing about it is kept."""
    return path.suffix.lower() == ".gltf"


def _look(path: Path, policy: AssetPolicy) -> Finding:
    """Hash one file and check its header."""
    try:
        return Finding(load_asset(path, "uid", policy).sha256)
    except FarmError as error:
        digest = ""
        if error.reason not in ("missing-file", "not-a-file", "too-large"):
            digest = _sha256(path)
        return Finding(digest, error.reason, plain_text(error.args[0]))


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _seen(entry: Entry, finding: Finding, size_bytes: int) -> _Seen:
    refusal = entry.problem
    if refusal is None and finding.reason:
        refusal = Refusal(finding.reason, finding.message, STAGE)
    if refusal is None and entry.sha256:
        own = (
            _sha256(entry.path) if _has_parts(entry.path) else finding.sha256
        )  # sources list the file's, not its parts'
        if own != entry.sha256:
            refusal = Refusal("fetch-failed", f"{entry.path.name}: expected the sha256 that its source lists, "
                              f"{entry.sha256[:12]}..., found {own[:12]}...; fetch it again", STAGE)  # fmt: skip
    return _Seen(entry, finding.sha256, size_bytes, refusal)


def _refuse_duplicates(seen: list[_Seen], known: Mapping[str, str], retry: Collection[str]) -> list[_Seen]:
    """Of the same bytes the run's own uid stays, else the smallest uid that is not refused for something else.

    A retried uid was accepted once: what the run has of its bytes does not count against it.
    """
    retried = set(retry)
    first: dict[str, str] = {}
    for uid in sorted(known, reverse=True):
        if known[uid] and uid not in retried:
            first[known[uid]] = uid
    of_batch: dict[str, str] = {}
    kept = []
    for one in seen:
        twin = None
        if one.refusal is None:
            twin = of_batch.get(one.sha256)
            if twin is None and one.entry.uid not in retried:
                twin = first.get(one.sha256)
        if twin is None:
            if one.refusal is None:
                of_batch[one.sha256] = one.entry.uid
            kept.append(one)
        else:
            refusal = Refusal("duplicate", f"{one.entry.uid}: expected each file once, found the bytes of {twin}; leave one "
                              "out, or set duplicates to keep", STAGE)  # fmt: skip
            kept.append(_Seen(one.entry, one.sha256, one.size_bytes, refusal))
    return kept


def _task(one: _Seen, spec: RenderSpec, filters: Filters, shard: str) -> Task:
    entry = one.entry
    shared = one.refusal is not None or filters.duplicates == "keep"
    name = f"{one.sha256}|{entry.uid}" if shared else one.sha256
    refusal = one.refusal and replace(one.refusal, message=plain_text(one.refusal.message))
    provenance = Provenance(**{name: plain_text(text) for name, text in vars(entry.provenance).items()})
    return Task(
        entry.uid, plain_text(str(entry.path)), plain_text(entry.path.suffix.lower()), one.sha256, one.size_bytes,
        task_key(name, spec), shard, provenance, refusal,
    )  # fmt: skip
