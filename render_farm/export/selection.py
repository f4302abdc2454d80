"""Which samples an export takes: the manifest's objects, with their receipts, one shard after the other."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from render_farm.errors import RunError
from render_farm.shards import Output, Receipt, Sample, read_parts, read_receipt, read_rows
from render_farm.shards.manifest import MANIFEST_NAME
from render_farm.shards.tables import Row

COLUMNS = [
    "uid", "shard", "sha256", "caption", "label", "license", "attribution", "source", "duplicate_of", "split",
]  # fmt: skip


@dataclass(frozen=True)
class Selected:
    """One object to export."""

    row: Row
    """Its row of the manifest's objects: COLUMNS."""
    receipt: Receipt
    """Of its shard."""
    samples: tuple[Sample, ...]
    """Its orbits."""

    @property
    def uid(self) -> str:
        """Of the object."""
        return str(self.row["uid"])

    def parts(self, output: Output, sample: Sample) -> dict[str, bytes]:
        """Return a sample's files by name."""
        return read_parts(output, self.receipt, sample)


def choose_rows(output: Output, uids: Iterable[str] | None, drop_duplicates: bool) -> list[Row]:
    """Return the rows of the objects that are wanted, by shard and uid.

    Raises:
        RunError: there is no manifest, or a uid that it does not hold.
    """
    if not output.exists(MANIFEST_NAME):
        raise RunError(f"{output.url}: expected a manifest, found none; finish the run, or merge what is sealed with "
                       "`turntable-farm manifest`")  # fmt: skip
    wanted = None if uids is None else set(uids)
    rows = [
        row
        for row in read_rows(output, "objects", COLUMNS, uids=wanted)
        if not (drop_duplicates and row["duplicate_of"])
    ]
    missing = (wanted or set()) - {row["uid"] for row in rows}
    if missing and not drop_duplicates:
        raise RunError(f"{output.url}: holds no object {min(missing)} ({len(missing)} of {len(wanted or ())} asked for are "
                       "not there); see manifest/failures.parquet")  # fmt: skip
    return sorted(rows, key=lambda row: (row["shard"], row["uid"]))


def select(output: Output, rows: Iterable[Row]) -> Iterator[Selected]:
    """Give objects with their receipts; one receipt is in memory at a time."""
    receipt: Receipt | None = None
    for row in rows:
        if receipt is None or receipt.shard != row["shard"]:
            receipt = read_receipt(output, row["shard"])
        yield Selected(row, receipt, receipt.samples_of(row["uid"]))
