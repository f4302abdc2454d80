"""What every source of assets yields: a name, a file, and what is known about it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from render_farm.assets import FORMATS, LONGEST_UID, NOT_ALLOWED, hashed_uid
from render_farm.records import Provenance, Refusal

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


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


def plain_text(text: str) -> str:
    """Return a text that can be stored: what is no Unicode (half an emoji, bytes of a file name) becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def unique_uids(places: Sequence[str]) -> list[str]:
    """Name files after their relative paths, folders joined by '_'; the order does not matter.

    Where two would have one name, the one whose path is spelt exactly so keeps it (of several formats: the first of
    FORMATS), and each other gets a hash of its path: what is added later seldom renames what was there. So does one that
    would be too long for a file's name.

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
        if len(uid) <= LONGEST_UID and _rank(place, uid) == keepers[uid] and (plain_count == 1 or not keepers[uid][0])
        else hashed_uid(uid, place)
        for place, uid, plain_count in zip(places, plain, _counts(plain), strict=True)
    ]


def _plain(place: str) -> str:
    return re.sub(NOT_ALLOWED, "_", _stem(place)).strip("_") or "object"


def _stem(place: str) -> str:
    path = PurePosixPath(place)
    return str(path.parent / path.stem)


def _rank(place: str, uid: str) -> tuple[bool, int, str]:
    suffix = PurePosixPath(place).suffix.lower()
    return (_stem(place) != uid, FORMATS.index(suffix) if suffix in FORMATS else len(FORMATS), place)


def _counts(names: Sequence[str]) -> list[int]:
    count: dict[str, int] = {}
    for name in names:
        count[name] = count.get(name, 0) + 1
    return [count[name] for name in names]
