"""Sealing: the staged objects of one shard become one tar, and then one receipt.

    staged folders -> shards/SHARD.tar (sorted, no times) -> checksum, offsets -> receipts/SHARD.json

The receipt is written last. A crash before it leaves a tar that the next attempt writes again, to the same bytes.
"""

import json
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.files import write_shard
from render_farm.errors import RunError
from render_farm.records import ObjectRecord
from render_farm.shards.outputs import Output, file_sha256
from render_farm.shards.receipts import (
    Member,
    Receipt,
    Sample,
    batch_of,
    encode_receipt,
    is_sealed,
    read_receipt,
    receipt_name,
    tar_name,
)
from render_farm.spec import RenderSpec


def run_context(spec: RenderSpec, versions: Mapping[str, str]) -> dict[str, Any]:
    """Return what receipts say about their run."""
    return {"spec_digest": spec.digest, "spec": json.loads(spec.canonical_json()), "versions": dict(versions)}


def seal_shard(
    output: Output,
    shard: str,
    records: Sequence[ObjectRecord],
    staged: Mapping[str, Path],
    *,
    context: Mapping[str, Any],
) -> Receipt:
    """Write a shard's tar and receipt, and return the receipt. The same input gives the same bytes.

    One sample is in memory at a time. A shard that is sealed already is left as it is, if it was sealed from these
    records. One process at a time may seal a shard; different shards do not meet.

    Args:
        output: where to.
        shard: BATCH-NUMBER.
        records: one for every object of the shard, done or failed.
        staged: by uid, the folder with the orbits of each object that is done.
        context: `run_context`.

    Raises:
        RunError: records and folders do not fit, or the shard is sealed with other records.
        OrbitError: a staged orbit is not valid.
        TurntableError: the file system refused.
    """
    batch_of(shard)
    ordered = tuple(sorted(records, key=lambda record: record.uid))
    paths = _samples(shard, ordered, staged)
    if is_sealed(output, shard):
        return _sealed_before(output, shard, ordered)
    receipt = Receipt(shard, 0, None, ordered, (), context)
    encode_receipt(receipt)  # records that are no JSON must not leave a tar behind
    output.clear_partials(tar_name(shard))
    output.clear_partials(receipt_name(shard))
    if paths:
        with output.writing(tar_name(shard)) as path:
            write_shard(path, paths)
            samples = _index(path)
            receipt = replace(receipt, bytes=path.stat().st_size, sha256=file_sha256(path), samples=samples)
            _check_unsealed(output, shard)
    else:
        output.remove(tar_name(shard))
    output.put_bytes(receipt_name(shard), encode_receipt(receipt))
    return receipt


def _samples(shard: str, records: Sequence[ObjectRecord], staged: Mapping[str, Path]) -> list[Path]:
    """The json of every staged orbit, after checking that records and folders fit."""
    uids = [record.uid for record in records]
    if not records or len(set(uids)) < len(uids):
        raise RunError(f"shard {shard}: needs one record for each object, got {len(uids)} of {len(set(uids))} objects")
    paths = []
    for record in records:
        if record.shard != shard:
            raise RunError(f"shard {shard}: the record of {record.uid} belongs to shard {record.shard}")
        if record.outcome == "failed":
            if record.refusal is None:
                raise RunError(f"shard {shard}: the record of {record.uid} says failed, but not why")
            continue
        if record.uid not in staged or not record.orbits:
            raise RunError(f"shard {shard}: {record.uid} is done, but has no staged folder with orbits")
        for orbit in record.orbits:
            path = staged[record.uid] / f"{record.uid}.{orbit}.json"
            if not path.is_file():
                raise RunError(f"shard {shard}: {path} is missing; its record lists the orbit {orbit}: render it again")
            paths.append(path)
    return paths


def _check_unsealed(output: Output, shard: str) -> None:
    """Before the tar takes its name: a process that was thought dead may have sealed the shard meanwhile."""
    if is_sealed(output, shard):
        raise RunError(f"shard {shard}: another process has sealed it meanwhile; its receipt counts")


def _sealed_before(output: Output, shard: str, records: tuple[ObjectRecord, ...]) -> Receipt:
    receipt = read_receipt(output, shard)
    if [record.to_json() for record in receipt.records] != [record.to_json() for record in records]:
        raise RunError(
            f"{output.address(receipt_name(shard))}: shard {shard} is sealed with other records, and a sealed shard never "
            "changes; put further objects in a new batch"
        )
    if receipt.tar is not None and output.size(receipt.tar) != receipt.bytes:
        raise RunError(
            f"{output.address(receipt.tar)}: must have {receipt.bytes} bytes as its receipt says, found "
            f"{output.size(receipt.tar)}; copy it again, or remove the receipt to seal the shard anew"
        )
    return receipt


def _index(path: Path) -> tuple[Sample, ...]:
    """Where every file lies in a tar that was just written."""
    found: dict[str, list[Member]] = {}
    documents: dict[str, Any] = {}
    with tarfile.open(path, "r:") as tar:
        for info in tar:
            sample, part = info.name.rsplit(".", 2)[0], tar.extractfile(info)
            assert part is not None, "write_shard writes regular files only"
            data = part.read()
            if info.name.endswith(".json"):
                sample = info.name.removesuffix(".json")
                documents[sample] = json.loads(data)
            found.setdefault(sample, []).append(Member(info.name, info.offset_data, info.size, zlib.crc32(data)))
    return tuple(
        Sample(documents[name]["uid"], documents[name]["orbit"], documents[name], tuple(members))
        for name, members in found.items()
    )
