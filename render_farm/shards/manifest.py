"""The manifest of an output: three Parquet tables and a signed summary, merged from all receipts.

    receipts -> newest batch of each uid -> clusters of duplicates, splits -> objects, views, failures -> manifest.json

Receipts are read twice, one at a time: once for what objects are recognised by, once for their rows. The same receipts
give the same files. manifest.json is written last and holds the checksum of everything else.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from render_farm.checks.hashes import NEAR_BITS
from render_farm.errors import RunError
from render_farm.records import ObjectRecord
from render_farm.shards import digested
from render_farm.shards.duplicates import FRACTIONS, SPLITS, Identity, Kinship, find_kin, split_of
from render_farm.shards.outputs import Output, file_sha256
from render_farm.shards.receipts import Receipt, check_receipt, list_receipts, read_receipt, receipt_name
from render_farm.shards.tables import SCHEMAS, Row, failure_row, object_row, view_rows

logger = logging.getLogger(__name__)

FORMAT = "manifest/1"
MANIFEST = "manifest"
"""Folder of an output."""
MANIFEST_NAME = f"{MANIFEST}/manifest.json"
CONVENTIONS = {
    "orbit": "orbit/1", "world": "right-handed, +Z up, metres; the object's longest side is 1, its box centred",
    "camera_axes": "OpenCV: +X right, +Y down, +Z forward", "pose": "T_world_camera: p_world = T_world_camera @ p_camera",
    "pixels": "u right, v down, centre of the first pixel at (0.5, 0.5), focal_px for both axes",
    "azimuth": "0 at -Y, counter-clockwise seen from above", "alpha": "straight", "colour": "sRGB",
    "view_transform": "Standard", "depth": "planar camera z; 16-bit steps of depth_scale_m metres; 0 is nothing",
    "normal": "world space, n * 0.5 + 0.5, alpha 0 is nothing",
    "camera_normal": "OpenCV camera axes, n * 0.5 + 0.5, alpha 0 is nothing",
    "material": "linear, G roughness, B metallic", "albedo": "base colour, sRGB",
}  # fmt: skip
"""What the numbers and pictures mean, for readers who have nothing else."""
ROWS = 16384
"""Of a row group."""
AT_A_TIME = 4096
"""Rows that are read as Python objects at a time: an object's measures alone are 5 KB of JSON."""


@dataclass(frozen=True)
class ManifestSummary:
    """What a manifest holds."""

    objects: int
    """With orbits."""
    failures: int
    """Without."""
    views: int
    """Pictures in colour."""
    shards: int
    """Sealed, with those that hold failures only."""
    bytes: int
    """Of all tars."""
    reasons: Mapping[str, int]
    """Failures by reason."""
    flags: Mapping[str, int]
    """Objects by flag."""
    duplicates: int
    """Objects that are a duplicate of another."""
    splits: Mapping[str, int]
    """Objects of train, val and test."""


def table_name(table: str) -> str:
    """Return the name of a table's file in an output."""
    return f"{MANIFEST}/{table}.parquet"


def build_manifest(
    output: Output,
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    progress: Callable[[int, int], None] | None = None,
) -> ManifestSummary:
    """Merge all receipts of an output into its manifest.

    Of a uid in several batches the newest counts. `progress` is told of receipts done and all.

    Raises:
        RunError: there is no receipt, one is damaged, or two were made from different specs.
        TurntableError: the file system refused.
    """
    shards = list_receipts(output)
    if not shards:
        raise RunError(f"{output.url}: holds no receipt: no shard is sealed yet")
    newest, identities, context = _first_pass(output, shards)
    kin = find_kin(identities)
    for name in (*(table_name(table) for table in SCHEMAS), MANIFEST_NAME):
        output.clear_partials(name)
    with ExitStack() as stack:
        tables = {
            name: _Table(stack.enter_context(output.writing(table_name(name))), schema)
            for name, schema in SCHEMAS.items()
        }
        for table in tables.values():
            stack.callback(table.close)
        tally = _Tally()
        for done, shard in enumerate(shards):
            data = output.get(receipt_name(shard))
            receipt = check_receipt(output, shard, data)
            tally.shard(receipt, hashlib.sha256(data).hexdigest())
            _add_rows(tables, tally, receipt, newest, kin, fractions)
            if progress:
                progress(done + 1, len(shards))
        facts = {name: table.finish() for name, table in tables.items()}
    document = _document(context, tally, facts, fractions)
    output.put_bytes(MANIFEST_NAME, digested.encode(document, MANIFEST_NAME))
    return tally.summary()


def _first_pass(output: Output, shards: tuple[str, ...]) -> tuple[dict[str, str], list[Identity], Mapping[str, Any]]:
    """Where each uid's newest record lies, what done objects are recognised by, and the run's context."""
    newest: dict[str, str] = {}
    found: dict[str, Identity | None] = {}
    context: Mapping[str, Any] | None = None
    for shard in sorted(shards, key=_age):
        receipt = read_receipt(output, shard)
        context = _same_spec(output, context, receipt)
        for record in receipt.records:
            newest[record.uid] = shard
            found[record.uid] = _identity(record) if record.outcome == "done" else None
    assert context is not None, "there is a receipt"
    return newest, [identity for _, identity in sorted(found.items()) if identity is not None], context


def _age(shard: str) -> tuple[int, int]:
    batch, number = shard.split("-")
    return int(batch), int(number)


def _same_spec(output: Output, context: Mapping[str, Any] | None, receipt: Receipt) -> Mapping[str, Any]:
    if context is not None and context.get("spec_digest") != receipt.context.get("spec_digest"):
        raise RunError(
            f"{output.address(receipt_name(receipt.shard))}: must be of spec {context.get('spec_digest')} like the shards "
            f"before, found {receipt.context.get('spec_digest')}; keep each spec in an output of its own"
        )
    return receipt.context


def _identity(record: ObjectRecord) -> Identity:
    mesh, picture = record.facts.get("mesh_hash"), record.quality.get("picture_hash")
    return Identity(record.uid, record.sha256, str(mesh or ""), str(picture or ""))


def _add_rows(
    tables: Mapping[str, "_Table"],
    tally: "_Tally",
    receipt: Receipt,
    newest: Mapping[str, str],
    kin: Mapping[str, Kinship],
    fractions: tuple[float, float, float],
) -> None:
    for record in receipt.records:
        if newest[record.uid] != receipt.shard:
            continue
        if record.outcome == "failed":
            row = failure_row(receipt, record)
            tables["failures"].add(row)
            tally.reasons[row["reason"]] += 1
            continue
        samples = receipt.samples_of(record.uid)
        split = split_of(kin[record.uid].cluster, fractions)
        row = object_row(receipt, record, samples, kin[record.uid], split)
        tables["objects"].add(row)
        tally.object(row)
        for sample in samples:
            for view in view_rows(receipt, record, sample, split):
                tables["views"].add(view)


class _Table:
    """A Parquet file that grows; a row group at a time is in memory."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows, self._waiting = path, schema, 0, list[Row]()
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", version="2.6")

    def add(self, row: Row) -> None:
        self._waiting.append(row)
        self.rows += 1
        if len(self._waiting) == ROWS:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._waiting, self.schema))
        self._waiting.clear()

    def finish(self) -> dict[str, Any]:
        if self._waiting or self.rows == 0:
            self._flush()
        self.close()
        return {"rows": self.rows, "bytes": self.path.stat().st_size, "sha256": file_sha256(self.path)}

    def close(self) -> None:
        self._writer.close()


@dataclass
class _Tally:
    """What is counted on the way."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SPLITS, 0)))
    objects: int = 0
    views: int = 0
    duplicates: int = 0

    def shard(self, receipt: Receipt, receipt_sha256: str) -> None:
        self.shards.append(
            {
                "shard": receipt.shard, "receipt_sha256": receipt_sha256, "tar": receipt.tar, "bytes": receipt.bytes,
                "sha256": receipt.sha256,
            }
        )  # fmt: skip

    def object(self, row: Row) -> None:
        self.objects += 1
        self.views += row["views"]
        self.duplicates += row["duplicate_of"] is not None
        self.flags.update(row["flags"])
        self.splits[row["split"]] += 1

    def summary(self) -> ManifestSummary:
        return ManifestSummary(
            self.objects, self.reasons.total(), self.views, len(self.shards), sum(s["bytes"] for s in self.shards),
            dict(sorted(self.reasons.items())), dict(sorted(self.flags.items())), self.duplicates, dict(self.splits),
        )  # fmt: skip


def _document(
    context: Mapping[str, Any], tally: _Tally, tables: Mapping[str, Any], fractions: tuple[float, float, float]
) -> dict[str, Any]:
    summary = tally.summary()
    return {
        "format": FORMAT, "conventions": CONVENTIONS, **context,
        "counts": {
            "objects": summary.objects, "failures": summary.failures, "views": summary.views, "shards": summary.shards,
            "bytes": summary.bytes, "duplicates": summary.duplicates, "reasons": summary.reasons,
            "flags": summary.flags, "splits": summary.splits,
        },
        "splits": dict(zip(SPLITS, fractions, strict=True)), "near_bits": NEAR_BITS,
        "tables": dict(tables), "shards": tally.shards,
    }  # fmt: skip


def read_manifest(output: Output) -> dict[str, Any]:
    """Read and check manifest.json. Raises RunError where it is missing or damaged."""
    if not output.exists(MANIFEST_NAME):
        raise RunError(f"{output.address(MANIFEST_NAME)}: is missing; build the manifest first")
    return digested.decode(output.get(MANIFEST_NAME), output.address(MANIFEST_NAME), FORMAT)


def read_rows(
    output: Output, table: str, columns: list[str] | None = None, *, uids: Collection[str] | None = None
) -> Iterator[Row]:
    """Give the rows of a table one after the other; of `uids` only, where given.

    Raises:
        RunError: it is missing or no Parquet.
    """
    wanted = None if uids is None else pa.array(uids, pa.string())
    with output.local(table_name(table)) as path:
        try:
            for batch in pq.ParquetFile(path).iter_batches(AT_A_TIME, columns=columns):
                kept = batch if wanted is None else batch.filter(pc.is_in(batch["uid"], value_set=wanted))
                yield from kept.to_pylist()
        except pa.ArrowException as error:
            raise RunError(
                f"{output.address(table_name(table))}: is damaged ({error}); build the manifest again"
            ) from error
