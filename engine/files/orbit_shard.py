"""`orbit/1` in WebDataset tars: KEY.ORBIT.json, KEY.ORBIT.rgba_00.webp, ... one sample after the other.

Same samples, same bytes: samples and members are sorted, and no member carries a time or an owner. WebDataset splits
names at the first dot (key KEY, field ORBIT.rgba_00.webp), so a uid in a shard must not hold a dot.
"""

import io
import logging
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar, cast, runtime_checkable

import fsspec

from engine.errors import OrbitError
from engine.files.atomic import atomic_file
from engine.files.images import Quality
from engine.files.orbit_codec import EXTENSIONS, decode_orbit, encode_orbit
from engine.files.orbit_folder import find_orbit, load_document, read_orbit
from engine.files.orbit_json import decode_document
from engine.files.types import OrbitImages

logger = logging.getLogger(__name__)

T = TypeVar("T")
MEMBER = re.compile(rf"(?P<sample>.+)\.(?P<part>json|(?:{'|'.join(EXTENSIONS)})_\d+\.(?:webp|png))")
TAR_END = 2 * tarfile.BLOCKSIZE
"""Bytes of the zero blocks that end a tar; without them it was cut off, perhaps between two members."""


@runtime_checkable
class _Readable(Protocol):
    """All that is asked of a stream, since fsspec's files are no `IO`."""

    def read(self, size: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class _Piece:
    """Where a member's bytes lie in the spool."""

    sample: str
    name: str
    offset: int
    size: int


def write_shard(path: Path, samples: Iterable[OrbitImages | Path], *, quality: Quality = "lossless") -> tuple[str, ...]:
    """Write a tar of samples, all or nothing, and return their names (KEY.ORBIT) in the order of the tar.

    Args:
        path: the tar.
        samples: in any order. A path (a sample's json or its folder) is checked, and its files are copied as they are.
        quality: of samples that come as arrays.

    Raises:
        OrbitError: no samples, an invalid one, two of one name, or a uid with a dot.
        TurntableError: the file system refused.
    """
    names: set[str] = set()
    pieces: list[_Piece] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file, tempfile.TemporaryFile(dir=path.parent) as spool:  # samples exceed memory together
        for item in samples:
            sample, members = _members(item, quality)
            _check_sample_name(sample, members, names, str(path))
            names.add(sample)
            for name, data in members.items():
                pieces.append(_Piece(sample, name, spool.tell(), len(data)))
                spool.write(data)
        if not pieces:
            raise OrbitError(f"{path}: a shard needs at least one sample, got none")
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for piece in sorted(pieces, key=lambda piece: (piece.sample, piece.name)):
                spool.seek(piece.offset)
                tar.addfile(_member(piece), spool)
    return tuple(sorted(names))


def _member(piece: _Piece) -> tarfile.TarInfo:
    info = tarfile.TarInfo(piece.name)  # mtime 0, uid and gid 0, no names
    info.size, info.mode = piece.size, 0o644
    return info


def _check_sample_name(sample: str, members: Iterable[str], names: set[str], where: str) -> None:
    if sample in names:
        raise OrbitError(f"{where}: sample {sample} comes twice; a shard holds each once")
    if max(len(name) for name in members) > tarfile.LENGTH_NAME:
        raise OrbitError(f"{where}: sample name {sample} is longer than a tar's 100 characters allow; shorten the uid")


def _members(item: OrbitImages | Path, quality: Quality) -> tuple[str, Mapping[str, bytes]]:
    if isinstance(item, OrbitImages):
        uid, encoded = item.uid, encode_orbit(item, quality)
        sample, members = encoded.sample, {f"{encoded.sample}.json": encoded.json, **encoded.images}
    else:
        json_path = find_orbit(item)
        read_orbit(json_path)
        document = load_document(json_path)
        uid, sample = document.uid, document.sample
        members = {f"{sample}.json": json_path.read_bytes()}
        for file in json_path.parent.iterdir():
            match = MEMBER.fullmatch(file.name)
            if match and match["sample"] == sample and match["part"] != "json":
                members[file.name] = file.read_bytes()
    if "." in uid:
        raise OrbitError(f"orbit {uid}: a uid in a shard must not hold a dot, where WebDataset ends the key; rename it")
    return sample, members


def iter_shard(url: str | Path, *, strict: bool = True) -> Iterator[OrbitImages]:
    """Yield a shard's samples, one after the other, reading forwards only (pipes and remote files work).

    Whole samples are yielded as they come, so those before a damage are out before it is reported.

    Args:
        url: a path, or anything that fsspec opens (s3://, https://, memory://).
        strict: raise at the first bad sample or cut-off end; otherwise log a warning, skip it and go on.

    Raises:
        OrbitError: not a tar, cut off, or a sample that is not valid; the message names shard and sample.
    """
    return _each(url, strict, _decode)


def validate_shard(url: str | Path) -> tuple[str, ...]:
    """Return the names of all samples (KEY.ORBIT) of a shard in which every one is valid. Raises OrbitError."""
    names: set[str] = set()

    def check(sample: str, parts: Mapping[str, bytes], where: str) -> str:
        _check_sample_name(sample, parts, names, where)
        names.add(sample)
        images = _decode(sample, parts, where)
        if "." in images.uid:
            raise OrbitError(f"{where}: uid {images.uid} holds a dot, where WebDataset ends the key; rename it")
        return sample

    found = tuple(_each(url, True, check))
    if not found:
        raise OrbitError(f"{url}: holds no orbit sample")
    return found


def _each(url: str | Path, strict: bool, use: Callable[[str, Mapping[str, bytes], str], T]) -> Iterator[T]:
    where = str(url)
    count = 0
    try:
        for sample, parts in _samples(where):
            try:
                result = use(sample, parts, where)
            except OrbitError as error:
                if strict:
                    raise
                logger.warning("skipped: %s", error)
                continue
            count += 1
            yield result
    except _CutOffError as error:
        inside = f" in sample {error.sample}" if error.sample else ""
        message = f"{where}: is cut off or damaged{inside}, after {count} whole samples: {error}; copy or seal it again"
        if strict:
            raise OrbitError(message) from error
        logger.warning("%s", message)


class _CutOffError(Exception):
    """The tar ended before its end."""

    def __init__(self, reason: str, sample: str | None) -> None:
        super().__init__(reason)
        self.sample = sample


def _samples(where: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Group consecutive members by sample; the last one only once the tar has proved whole or gone on."""
    sample: str | None = None
    parts: dict[str, bytes] = {}
    with _open(where) as raw:
        stream = _Tail(raw)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as tar:
                for member in tar:
                    match = MEMBER.fullmatch(member.name.removeprefix("./"))
                    if not (member.isfile() and match):
                        continue
                    if sample is not None and match["sample"] != sample:
                        yield sample, parts
                        parts = {}
                    sample = match["sample"]
                    content = tar.extractfile(member)
                    assert content is not None, "a regular file has content"
                    parts[member.name.rsplit("/", 1)[-1]] = content.read()
                end = tar.offset
            stream.drain()
        except (tarfile.TarError, EOFError, ValueError) as error:
            raise _CutOffError(str(error), sample) from error
        except OSError as error:
            raise OrbitError(f"{where}: cannot be read: {error.strerror or error}") from error
        if stream.nonzero > end:  # tarfile takes a damaged header for the end
            raise _CutOffError(f"the header at byte {end} is damaged", sample)
        if stream.total < end + TAR_END:
            raise _CutOffError("its end marker is missing", sample)
    if sample is not None:
        yield sample, parts


def _decode(sample: str, parts: Mapping[str, bytes], where: str) -> OrbitImages:
    base = sample.rsplit("/", 1)[-1]
    json_name = f"{base}.json"
    if json_name not in parts:
        raise OrbitError(f"{where}: sample {sample} has no {json_name}")
    document = decode_document(parts[json_name], f"{where}: {json_name}")
    if document.sample != base:
        raise OrbitError(f"{where}: {json_name} says that it is {document.sample}; name and content must agree")
    return decode_orbit(document, parts.get, where)


def _open(where: str) -> AbstractContextManager[_Readable]:
    """Local files without fsspec, which seeks to their end and so cannot open a pipe."""
    try:
        if "://" in where:
            return cast(AbstractContextManager[_Readable], fsspec.open(where, "rb").open())
        return Path(where).open("rb")
    except (OSError, ValueError, ImportError) as error:
        raise OrbitError(f"{where}: cannot be opened: {error}") from error


class _Tail(io.RawIOBase):
    """A stream that counts what went through it, and knows where the last byte was that is not zero."""

    def __init__(self, raw: _Readable) -> None:
        super().__init__()
        self.raw, self.total, self.nonzero = raw, 0, 0

    def read(self, size: int = -1) -> bytes:
        data = self.raw.read(size)
        content = len(data.rstrip(b"\0"))
        self.nonzero = self.total + content if content else self.nonzero
        self.total += len(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass
