"""What every source of assets yields: a name, a file, and what is known about it."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from render_farm.assets import FORMATS, NOT_ALLOWED
from render_farm.records import Provenance, Refusal

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""
HASH_BYTES = 6


@dataclass(frozen=True)
class Entry:
    """One object that a source names."""

    uid: str
    """Letters, digits, '_', '-'; unique in its source."""
    path: Path
    """Absolute path of the model, whether it is there or not."""
    provenance: Provenance = field(default_factory=Provenance)
    """What the source says of it."""
    problem: Refusal | None = None
    """Why it cannot be rendered, where the source knows already: it could not be fetched, its licence is not wanted."""
    sha256: str = ""
    """What the source promises the bytes to be; empty: nothing. The scan checks it."""


def check_uid(uid: str) -> str | None:
    """Return what is wrong with a uid, or None."""
    if uid and not NOT_ALLOWED.search(uid):
        return None
    return f"a uid must hold letters, digits, '_' and '-' only, got {uid!r}"


def unique_uids(places: Sequence[str]) -> list[str]:
    """Name files after their relative paths, folders joined by '_'; the order does not matter.

    Where two would have one name, the one whose path is spelt exactly so keeps it (of several formats: the first of
    FORMATS), and each other gets a hash of its path: what is added later seldom renames what was there.

    Args:
        places: relative paths with '/' between their parts.
    """
    plain = [_plain(place) for place in places]
    keepers: dict[str, tuple[bool, int, str]] = {}
    for place, uid in zip(places, plain, strict=True):
        rank = _rank(place, uid)
        keepers[uid] = min(keepers.get(uid, rank), rank)
    return [
        uid
        if _rank(place, uid) == keepers[uid] and (plain_count == 1 or not keepers[uid][0])
        else f"{uid}_{_hash(place)}"
        for place, uid, plain_count in zip(places, plain, _counts(plain), strict=True)
    ]


def _plain(place: str) -> str:
    stem = str(PurePosixPath(place).with_suffix(""))
    return re.sub(NOT_ALLOWED, "_", stem).strip("_") or "object"


def _rank(place: str, uid: str) -> tuple[bool, int, str]:
    path = PurePosixPath(place)
    suffix = path.suffix.lower()
    return (str(path.with_suffix("")) != uid, FORMATS.index(suffix) if suffix in FORMATS else len(FORMATS), place)


def _counts(names: Sequence[str]) -> list[int]:
    count: dict[str, int] = {}
    for name in names:
        count[name] = count.get(name, 0) + 1
    return [count[name] for name in names]


def _hash(place: str) -> str:
    return hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=HASH_BYTES).hexdigest()
