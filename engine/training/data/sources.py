"""What is typed as training data -> tars: files, folders, globs, brace patterns, URLs, each with an optional weight.

orbits/*.tar   "orbits/{000..127}.tar@2.5"   s3://bucket/orbits   https://host/orbits-{00..15}.tar
"""

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec
from braceexpand import braceexpand

from engine.errors import TrainingError, named

SUFFIX = ".tar"
"""What is taken from a folder."""
WEIGHTED = re.compile(r"(?P<pattern>.+)@(?P<weight>\d+\.?\d*|\.\d+)")
"""PATH@2.5; anything else behind an @ belongs to the path, as in https://user@host."""
EXPECTED = "a tar, a folder of tars, a glob, a brace pattern such as {000..127}, or a URL"


@dataclass(frozen=True)
class Source:
    """Tars that are drawn from alike."""

    pattern: str
    """As it was typed, for messages."""
    urls: tuple[str, ...]
    """Paths or URLs that fsspec opens, in order."""
    weight: float = 1.0
    """How often its samples come, beside the other sources'."""


@dataclass(frozen=True)
class Shards:
    """All tars of a run."""

    sources: tuple[Source, ...]
    """One, of which a pass takes every sample once; or, where weights were typed, one for each pattern: every source's
    share of the samples is its weight over all weights, however large it is, and a pass ends when each was read
    to its end at least once."""

    @property
    def urls(self) -> tuple[str, ...]:
        """All tars."""
        return tuple(url for source in self.sources for url in source.urls)

    @property
    def patterns(self) -> str:
        """What was typed, for messages."""
        return ", ".join(source.pattern for source in self.sources)


def find_shards(patterns: Sequence[str]) -> Shards:
    """Return the tars that patterns name, in the order given, those of a pattern sorted.

    `PATTERN@WEIGHT` weighs its samples; where one pattern is weighted, those without count 1.

    Raises:
        TrainingError: nothing is there, a brace pattern or weight makes no sense; the message names the pattern.
    """
    if not patterns:
        raise TrainingError(f"no training data was named; expected {EXPECTED}")
    parsed = [_weight(str(pattern)) for pattern in patterns]
    sources = [Source(pattern, _tars(pattern), 1.0 if weight is None else weight) for pattern, weight in parsed]
    if any(weight is not None for _, weight in parsed):
        return Shards(tuple(sources))
    urls = tuple(dict.fromkeys(url for source in sources for url in source.urls))  # named twice is there once
    return Shards((Source(", ".join(source.pattern for source in sources), urls),))


def is_url(place: str) -> bool:
    """Whether fsspec opens it, rather than the file system."""
    return "://" in place


def _weight(typed: str) -> tuple[str, float | None]:
    match = WEIGHTED.fullmatch(typed)
    if match is None or (not is_url(typed) and Path(typed).exists()):
        return typed, None
    weight = float(match["weight"])
    if not weight > 0:
        raise TrainingError(
            f"{typed}: a weight must be above 0, found {match['weight']}; leave the pattern out instead"
        )
    return match["pattern"], weight


def _tars(pattern: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(url for place in _unbraced(pattern) for url in _expanded(place, pattern)))
    if not found:
        raise TrainingError(f"{pattern}: no shard found; expected {EXPECTED}; check the path, or render orbits first "
                            "with turntable-farm run")  # fmt: skip
    missing = [url for url in found if not is_url(url) and not Path(url).is_file()]
    if missing:
        raise TrainingError(
            f"{pattern}: {len(missing)} of {len(found)} shards are missing: {named(missing)}; check the path"
        )
    return found


def _unbraced(pattern: str) -> Iterator[str]:
    if "{" not in pattern or Path(pattern).exists():
        yield pattern
        return
    try:
        yield from braceexpand(pattern)
    except ValueError as error:
        raise TrainingError(f"{pattern}: its braces do not close; expected such as orbits-{{000..127}}.tar") from error


def _expanded(place: str, pattern: str) -> list[str]:
    """Files of a folder or a glob, sorted; any other place as it is."""
    if is_url(place):
        return _remote(place, pattern)
    path = Path(place).expanduser()
    if path.is_dir():
        return sorted(str(file) for file in path.glob(f"*{SUFFIX}"))
    if glob.has_magic(place) and not path.exists():
        return sorted(file for file in fsspec.filesystem("file").glob(str(path)) if Path(file).is_file())
    return [str(path)] if path.exists() or pattern != place else []


def _remote(url: str, pattern: str) -> list[str]:
    """As for paths; a brace pattern's URLs are not asked for one by one, reading will tell."""
    try:
        system, path = fsspec.core.url_to_fs(url)
        if "*" in path:  # no other magic: an URL's ? begins its query
            return [system.unstrip_protocol(name) for name in sorted(system.glob(path))]
        if url.endswith(SUFFIX):
            return [url] if pattern != url or system.exists(path) else []
        if system.isdir(path):
            names = sorted(system.glob(f"{path.rstrip('/')}/*{SUFFIX}"))
            return [system.unstrip_protocol(name) for name in names]
        return [url] if system.exists(path) else []
    except Exception as error:  # backends of fsspec share no base class
        raise TrainingError(f"{pattern}: cannot be listed: {error or type(error).__name__}; check the URL") from error
