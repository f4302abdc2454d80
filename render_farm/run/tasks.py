"""The frozen batches, read as little as is needed: of 800,000 tasks, a node of a cluster wants one shard's.

A whole batch of that size is 2 GB of Python objects. Names and sizes of shards come from one column; tasks of some shards
from a pass over the file that keeps only theirs. Row groups that cannot hold them are passed over.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from render_farm.catalogue.batches import read_columns, reading_batch, task_of
from render_farm.records import Task

ROWS = 16384
"""Decoded at a time."""


def count_tasks(path: Path) -> Counter[str]:
    """Return how many tasks of a batch each shard has. Raises RunError where the file cannot be read."""
    (shards,) = read_columns(path, "shard")
    return Counter(shards)


def read_hashes(path: Path) -> dict[str, str]:
    """Return uid -> sha256 of a batch's files. Raises RunError where the file cannot be read."""
    uids, hashes = read_columns(path, "uid", "sha256")
    return dict(zip(uids, hashes, strict=True))


def read_sizes(path: Path) -> dict[str, int | None]:
    """Return uid -> bytes of a batch's files, None where one was refused. Raises RunError where it cannot be read."""
    columns = read_columns(path, "uid", "size_bytes", "refusal_reason")
    return {uid: size if reason is None else None for uid, size, reason in zip(*columns, strict=True)}


def iter_tasks(path: Path, column: Literal["shard", "uid"], values: Collection[str]) -> Iterator[Task]:
    """Give the tasks whose shard or uid is one of some, in the batch's order. Raises RunError as the others."""
    wanted = pa.array(sorted(set(values)), pa.string())
    with reading_batch(path), pq.ParquetFile(path) as file:
        groups = [index for index in range(file.num_row_groups) if _may_hold(file, index, column, values)]
        for rows in file.iter_batches(ROWS, row_groups=groups) if groups else ():
            kept = rows.filter(pc.is_in(rows[column], value_set=wanted))
            yield from map(task_of, kept.to_pylist())


def _may_hold(file: pq.ParquetFile, group: int, column: str, values: Collection[str]) -> bool:
    """By the smallest and the largest value in it; True where the file does not say."""
    known = file.metadata.row_group(group).column(file.schema_arrow.get_field_index(column)).statistics
    if known is None or not known.has_min_max:
        return True
    return any(known.min <= value <= known.max for value in values)
