"""Samples as they lie in tars, undecoded, in the order in which a run takes them.

    Shards --order of a pass--> tars --webdataset's reader--> members --by name--> RawSample --shuffled--> Step

The order is a function of the run's seed, the pass and the shards alone. A reader either takes every sample (and
another stage deals them, see `dealing`) or has shards, or samples, of its own: its `part`.
"""

import logging
import tarfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol, cast, runtime_checkable

import fsspec
import numpy as np
from webdataset.tariterators import tar_file_iterator

from engine.errors import TrainingError
from engine.training.data.sources import Shards, Source, is_url
from engine.training.data.tally import Reason
from engine.training.types import seed_from

log = logging.getLogger(__name__)

CHUNK = 1 << 20
"""Bytes asked of a file at a time."""
TAR_END = 2 * tarfile.BLOCKSIZE
"""Bytes of the zero blocks that end a tar; without them it was cut off, perhaps between two members."""
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
"""How gzip, bzip2 and xz begin; those know themselves whether they are whole."""
BUFFER_SAMPLES = 256
"""Samples among which the next one is drawn at random."""
BUFFER_BYTES = 128 << 20
"""What these may take; samples of 24 views at 256 px with depth are a few megabytes each."""
ATTEMPTS = 3
"""Times that a remote shard is read before it counts as lost; a second, then four, between them."""


@runtime_checkable
class Members(Protocol):
    """How file names in a tar make samples."""

    def wanted(self, name: str) -> bool:
        """Whether a file is read at all."""

    def split(self, name: str) -> tuple[str, str]:
        """Return the sample's name and which of its parts a wanted file is."""

    def nothing(self, urls: Sequence[str]) -> str:
        """Say why no sample was found in any of the shards, and what to do."""


@dataclass(frozen=True)
class RawSample:
    """One sample's files, or what is wrong with it or its shard."""

    name: str
    """KEY.ORBIT of an orbit, KEY of a picture, a shard's URL where the shard is bad."""
    url: str
    """The shard."""
    parts: Mapping[str, bytes] = field(default_factory=dict)
    """Which file -> its bytes."""
    problem: tuple[Reason, str] | None = None
    """Why it cannot be read, and in what way."""

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(map(len, self.parts.values()))


@dataclass(frozen=True)
class Step:
    """One sample in a reader's endless order."""

    epoch: int
    """Passes before this one."""
    index: int
    """Samples of this pass before it."""
    turn: int
    """Times that this pass had already read the sample's source to its end (mixtures)."""
    raw: RawSample
    """The sample."""


# ---------------------------------------------------------------- one tar
@runtime_checkable
class _Readable(Protocol):
    """All that is asked of a stream, since fsspec's files are no `IO`."""

    def read(self, size: int = ..., /) -> bytes: ...


class _Blocks:
    """Hands a stream on block by block, so that it is known how far the tar's reader came, and what lies behind."""

    def __init__(self, raw: _Readable) -> None:
        self._raw, self._chunk, self._place = raw, b"", 0
        self.taken = self.total = self.nonzero = 0
        self.compressed = False

    def read(self, size: int = -1, /) -> bytes:
        if self._place >= len(self._chunk) and not self._next():
            return b""
        block = self._chunk[self._place : self._place + tarfile.BLOCKSIZE]
        self._place += len(block)
        self.taken += len(block)
        return block

    def _next(self) -> bool:
        self._chunk, self._place = self._raw.read(CHUNK) or b"", 0
        if self.total == 0:
            self.compressed = self._chunk.startswith(COMPRESSED)
        content = len(self._chunk.rstrip(b"\0"))
        self.nonzero = self.total + content if content else self.nonzero
        self.total += len(self._chunk)
        return bool(self._chunk)

    def damage(self) -> str:
        """Return what is wrong with a tar that its reader took for whole; empty if nothing is."""
        taken = self.taken
        while self._next():
            pass
        if self.compressed:
            return ""
        if self.nonzero > taken - tarfile.BLOCKSIZE:  # tarfile takes a damaged header for the end
            return f"the header before byte {taken} is damaged"
        return "" if self.total - self.nonzero >= TAR_END else "its end marker is missing"


def read_shard(url: str, members: Members) -> Iterator[RawSample]:
    """Yield a shard's samples as they come; a last one says what is wrong with the shard, if anything is.

    Remote shards are tried again where they were left when the connection breaks.
    """
    given = 0
    attempts = ATTEMPTS if is_url(url) else 1
    for attempt in range(attempts):
        try:
            for sample in islice(_samples(url, members), given, None):
                given += 1
                yield sample
            return
        except Exception as error:  # noqa: BLE001 - backends of fsspec share no base class, and hours of training hang on it
            text = (
                str(error).partition(" @ ")[0].partition("\n")[0] or type(error).__name__
            )  # webdataset adds the stream
            if attempt + 1 == attempts or isinstance(error, FileNotFoundError):
                yield RawSample(url, url, problem=("cannot be read", f"cannot be read: {text}"))
                return
            log.warning("%s: %s; trying again", url, text)
            time.sleep(4**attempt)


def _samples(url: str, members: Members) -> Iterator[RawSample]:
    name, parts, anything = "", dict[str, bytes](), False

    def wanted(member: str) -> bool:
        nonlocal anything
        anything = True
        return members.wanted(member)

    with _open(url) as raw:
        blocks = _Blocks(raw)
        problem = ""
        try:
            for file in tar_file_iterator(blocks, skip_meta=None, select_files=wanted):
                sample, part = members.split(file["fname"])
                if parts and sample != name:
                    yield RawSample(name, url, parts)
                    parts = {}
                name = sample
                parts[part] = file["data"]
            problem = blocks.damage()
        except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
            problem = str(error.args[0] if error.args else error).partition(" @ ")[0]  # webdataset appends the stream
    if problem and blocks.total == 0:
        yield RawSample(url, url, problem=("empty", "is empty, 0 bytes"))
    elif problem:
        inside = f" in sample {name}" if parts else ""
        yield RawSample(url, url, problem=("cut off", f"is cut off or damaged{inside}: {problem}"))
    elif parts:
        yield RawSample(name, url, parts)
    elif not anything:
        yield RawSample(url, url, problem=("empty", "holds no file"))


def _open(url: str) -> AbstractContextManager[_Readable]:
    """Local files without fsspec, which seeks to their end and so cannot open a pipe."""
    opened = fsspec.open(url, "rb").open() if is_url(url) else Path(url).expanduser().open("rb")
    return cast(AbstractContextManager[_Readable], opened)


# ---------------------------------------------------------------- their order
def shuffled(samples: Iterator[RawSample], generator: np.random.Generator) -> Iterator[RawSample]:
    """Draw each next sample from a buffer that is kept as full as it may be."""
    buffer: list[RawSample] = []
    held = 0
    for sample in samples:
        buffer.append(sample)
        held += sample.size
        while len(buffer) > BUFFER_SAMPLES or (held > BUFFER_BYTES and len(buffer) > 1):
            place = int(generator.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            chosen = buffer.pop()
            held -= chosen.size
            yield chosen
    for place in generator.permutation(len(buffer)):
        yield buffer[place]


@dataclass(frozen=True)
class Part:
    """Which of the readers that share the data's shards."""

    reader: int
    """Counted from 0."""
    readers: int
    """How many there are."""


class Walk:
    """A reader's endless order of samples, pass after pass."""

    def __init__(self, shards: Shards, members: Members, seed: int, *, part: Part | None = None, order: bool = False):
        """Read nothing yet.

        Args:
            shards: what there is.
            members: how files make samples.
            seed: the run's.
            part: this reader's share: whole shards of sources that have at least one for each reader (dealt anew
                every pass), every so-manieth sample of the others. None: everything.
            order: as stored, not shuffled.
        """
        self._shards, self._members, self._seed, self._part, self._order = shards, members, seed, part, order
        self._proven: set[int] = set()

    def steps(self, epoch: int = 0, skip: int = 0) -> Iterator[Step]:
        """Yield samples for ever, from a pass on, without its first `skip`. Raises TrainingError if there is none."""
        while True:
            yield from islice(self.one_pass(epoch), skip, None)
            epoch, skip = epoch + 1, 0

    def one_pass(self, epoch: int) -> Iterator[Step]:
        """Yield the samples of a pass; several sources interleaved by their weights."""
        for index, (turn, raw) in enumerate(self._mixed(epoch)):
            yield Step(epoch, index, turn, raw)

    def _mixed(self, epoch: int) -> Iterator[tuple[int, RawSample]]:
        sources = self._shards.sources
        streams = {number: self._source(number, epoch, 0) for number in range(len(sources))}
        taken, turns = [0] * len(sources), [0] * len(sources)
        unread = set(streams)  # sources that were not read to their end yet
        while streams:
            number = min(streams, key=lambda n: ((taken[n] + 1) / sources[n].weight, n))
            raw = next(streams[number], None)
            if raw is None:
                unread.discard(number)
                if not unread:
                    return
                turns[number] += 1
                streams[number] = self._source(number, epoch, turns[number])
                if (raw := next(streams[number], None)) is None:  # nothing of it falls to this reader in this pass
                    del streams[number]
                    continue
            taken[number] += 1
            yield turns[number], raw

    def _source(self, number: int, epoch: int, turn: int) -> Iterator[RawSample]:
        source, part = self._shards.sources[number], self._part
        urls: Sequence[str] = source.urls
        if not self._order:
            generator = np.random.default_rng(seed_from(self._seed, "shards", number, epoch, turn))
            urls = [urls[place] for place in generator.permutation(len(urls))]
        own = part is not None and len(urls) >= part.readers
        if own and part is not None:
            urls = urls[part.reader :: part.readers]
        samples: Iterator[RawSample] = (sample for url in urls for sample in read_shard(url, self._members))
        if not self._order:
            who = (part.reader,) if own and part is not None and part.readers > 1 else ()
            samples = shuffled(
                samples, np.random.default_rng(seed_from(self._seed, "samples", number, epoch, turn, *who))
            )
        if part is not None and not own:
            samples = islice(samples, part.reader, None, part.readers)
        yield from self._checked(samples, number, source)

    def _checked(self, samples: Iterator[RawSample], number: int, source: Source) -> Iterator[RawSample]:
        """Tell a source without any sample from one whose samples lie in other readers' shards."""
        for sample in samples:
            self._proven.add(number)
            yield sample
        if number in self._proven:
            return
        if not any(True for url in source.urls for _ in read_shard(url, self._members)):
            raise TrainingError(f"{source.pattern}: {self._members.nothing(source.urls)}")
        self._proven.add(number)


# ---------------------------------------------------------------- names in tars
def member_names(url: str) -> Iterator[str]:
    """Yield the names of a tar's files, as far as it can be read."""
    try:
        with _open(url) as raw, tarfile.open(fileobj=cast(BinaryIO, raw), mode="r|*") as tar:
            for member in tar:
                yield member.name
    except (OSError, tarfile.TarError, EOFError) as error:
        log.debug("%s: %s", url, error)
