"""A receipt says what one sealed shard holds: written after its tar, it is the mark that the shard is there.

    shards/000-000012.tar       samples of all objects that succeeded (none: no tar)
    receipts/000-000012.json    `receipt/1`: checksum of the tar, record of every object, where each picture lies

Receipts are the truth for every engine; the manifest is merged from them.
"""

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from engine.files import OrbitImages
from engine.files.orbit_codec import decode_orbit, image_name
from engine.files.orbit_json import OrbitDocument, check_document
from render_farm.errors import RunError
from render_farm.records import ObjectRecord
from render_farm.shards import digested
from render_farm.shards.outputs import Output

FORMAT = "receipt/1"
SHARDS, RECEIPTS = "shards", "receipts"
"""Folders of an output."""
SHARD_NAME = re.compile(r"(?P<batch>\d{3,})-(?P<number>\d{6,})")
"""BATCH-NUMBER."""


@dataclass(frozen=True)
class Member:
    """One file of a sample inside its tar."""

    name: str
    """KEY.ORBIT.json, KEY.ORBIT.rgba_00.webp, ..."""
    offset: int
    """Of its first byte in the tar."""
    size: int
    """Bytes."""
    crc32: int
    """Of its bytes: says which file is damaged where the tar's checksum says that one is."""


@dataclass(frozen=True)
class Sample:
    """One orbit of one object."""

    uid: str
    """Of the object."""
    orbit: str
    """Name of the orbit."""
    document: Mapping[str, Any]
    """Its json, as it lies in the tar: cameras, light, texts."""
    members: tuple[Member, ...]
    """In the order of the tar, one after the other."""

    @property
    def name(self) -> str:
        """KEY.ORBIT."""
        return f"{self.uid}.{self.orbit}"

    def checked(self) -> OrbitDocument:
        """Return the document with its cameras. Raises OrbitError."""
        return check_document(self.document, f"{self.name}.json")

    def member(self, kind: str, view: int) -> Member | None:
        """Return one picture's place: kind rgba, depth, normal, ...; None where the sample has none."""
        name = image_name(self.name, kind, view)
        return self._by_name.get(name)

    @cached_property
    def _by_name(self) -> dict[str, Member]:
        return {member.name: member for member in self.members}


@dataclass(frozen=True)
class Receipt:
    """What one shard holds."""

    shard: str
    """BATCH-NUMBER."""
    bytes: int
    """Of the tar; 0 without one."""
    sha256: str | None
    """Of the tar; None where no object succeeded, and then there is no tar."""
    records: tuple[ObjectRecord, ...]
    """Of every object of the shard, by uid."""
    samples: tuple[Sample, ...]
    """In the order of the tar."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Of the run: `spec_digest`, `spec` (RenderSpec.canonical_json as an object), `versions`."""

    @property
    def batch(self) -> int:
        """Number of the batch."""
        return batch_of(self.shard)

    @property
    def tar(self) -> str | None:
        """Name of the tar in the output."""
        return None if self.sha256 is None else tar_name(self.shard)

    def samples_of(self, uid: str) -> tuple[Sample, ...]:
        """Return the orbits of one object."""
        return self._by_uid.get(uid, ())

    @cached_property
    def _by_uid(self) -> dict[str, tuple[Sample, ...]]:
        found: dict[str, tuple[Sample, ...]] = {}
        for sample in self.samples:
            found[sample.uid] = (*found.get(sample.uid, ()), sample)
        return found


def tar_name(shard: str) -> str:
    """Return the tar's name in an output."""
    return f"{SHARDS}/{shard}.tar"


def receipt_name(shard: str) -> str:
    """Return the receipt's name in an output."""
    return f"{RECEIPTS}/{shard}.json"


def batch_of(shard: str) -> int:
    """Return the batch's number. Raises RunError for what is no shard's name."""
    match = SHARD_NAME.fullmatch(shard)
    if match is None:
        raise RunError(f"shard {shard!r}: must be named BATCH-NUMBER such as 000-000012")
    return int(match["batch"])


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the receipt's file. The same receipt gives the same bytes."""
    document = {
        "format": FORMAT, "shard": receipt.shard, "tar": receipt.tar, "bytes": receipt.bytes, "sha256": receipt.sha256,
        "context": dict(receipt.context), "records": [asdict(record) for record in receipt.records],
        "samples": [
            {"uid": s.uid, "orbit": s.orbit, "document": dict(s.document),
             "members": [[m.name.removeprefix(f"{s.name}."), m.offset, m.size, m.crc32] for m in s.members]}
            for s in receipt.samples
        ],
    }  # fmt: skip
    return digested.encode(document, receipt_name(receipt.shard))


def decode_receipt(data: bytes, name: str) -> Receipt:
    """Check and read a receipt's file. Raises RunError."""
    document = digested.decode(data, name, FORMAT)
    try:
        samples = tuple(_sample(entry) for entry in document["samples"])
        records = tuple(ObjectRecord.from_dict(entry) for entry in document["records"])
        return Receipt(document["shard"], document["bytes"], document["sha256"], records, samples, document["context"])
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{name}: is no receipt of this program's version ({error!r:.120})") from error


def _sample(entry: Mapping[str, Any]) -> Sample:
    name = f"{entry['uid']}.{entry['orbit']}"
    members = tuple(Member(f"{name}.{part}", offset, size, crc) for part, offset, size, crc in entry["members"])
    return Sample(entry["uid"], entry["orbit"], entry["document"], members)


def read_receipt(output: Output, shard: str) -> Receipt:
    """Read and check one receipt. Raises RunError where it is missing, damaged or another shard's."""
    return check_receipt(output, shard, output.get(receipt_name(shard)))


def check_receipt(output: Output, shard: str, data: bytes) -> Receipt:
    """Decode what was read as a shard's receipt. Raises RunError where it is damaged or another shard's."""
    name = receipt_name(shard)
    receipt = decode_receipt(data, output.address(name))
    if receipt.shard != shard:
        raise RunError(f"{output.address(name)}: must be the receipt of shard {shard}, found that of {receipt.shard}")
    return receipt


def list_receipts(output: Output) -> tuple[str, ...]:
    """Return the names of all sealed shards, in order."""
    names = (name.removeprefix(f"{RECEIPTS}/") for name in output.list(RECEIPTS))
    return tuple(name[:-5] for name in names if name.endswith(".json") and SHARD_NAME.fullmatch(name[:-5]))


def is_sealed(output: Output, shard: str) -> bool:
    """Say whether a shard's receipt is there."""
    return output.exists(receipt_name(shard))


def read_parts(output: Output, receipt: Receipt, sample: Sample) -> dict[str, bytes]:
    """Return a sample's files by name: one ranged read, wherever the tar lies.

    Raises:
        RunError: the tar is missing, cut off, or a file is not what was sealed.
    """
    assert receipt.tar is not None, "a receipt with samples has a tar"
    start = sample.members[0].offset
    end = max(member.offset + member.size for member in sample.members)
    block = output.get_range(receipt.tar, start, end - start)
    parts = {m.name: block[m.offset - start : m.offset - start + m.size] for m in sample.members}
    wrong = wrong_members(sample.members, parts)
    if wrong:
        raise RunError(f"{output.address(receipt.tar)}: {wrong[0]} is damaged; copy the shard again")
    return parts


def read_sample(output: Output, receipt: Receipt, sample: Sample) -> OrbitImages:
    """Return a sample's cameras and pictures. Raises RunError and OrbitError."""
    parts = read_parts(output, receipt, sample)
    return decode_orbit(sample.checked(), parts.get, output.address(str(receipt.tar)))


def wrong_members(members: Sequence[Member], parts: Mapping[str, bytes]) -> list[str]:
    """Return the names of those whose bytes are not what was sealed."""
    return [m.name for m in members if len(parts[m.name]) != m.size or zlib.crc32(parts[m.name]) != m.crc32]
