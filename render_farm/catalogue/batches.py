"""A batch of tasks as one Parquet file: written once, before the run starts; never changed after.

One row a task, one column a field; provenance and refusal are spread out. The same tasks give the same bytes (with the
same pyarrow), so two machines can compare their batches by hash.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.files.atomic import atomic_file
from render_farm.errors import RunError
from render_farm.records import Provenance, Refusal, Task

FORMAT_KEY, FORMAT = b"turntable.format", b"tasks/1"
"""In the file's metadata; raised whenever a column changes its meaning."""
PROVENANCE = ("caption", "label", "license", "attribution", "source")
ROWS = 4096
"""Read at a time: a million rows as dictionaries are gigabytes."""
ROW_GROUP = 8192
"""Tasks that are stored together: who wants one shard's passes over the other groups (run/tasks.py)."""
REFUSAL = ("reason", "message", "stage", "detail")
SCHEMA = pa.schema(
    [
        *(pa.field(name, pa.string(), nullable=False) for name in ("uid", "path", "suffix", "sha256")),
        pa.field("size_bytes", pa.int64(), nullable=False),
        *(pa.field(name, pa.string(), nullable=False) for name in ("key", "shard", *PROVENANCE)),
        *(pa.field(f"refusal_{name}", pa.string()) for name in REFUSAL),
    ],
    metadata={FORMAT_KEY: FORMAT},
)
"""refusal_*: null where the object is to be rendered."""


def write_batch(path: Path, tasks: Sequence[Task]) -> None:
    """Write a batch, whole or not at all, in the order given.

    Raises:
        RunError: a uid or a key comes twice, or a text is no Unicode.
        TurntableError: the file system refused.
    """
    for name in ("uid", "key"):
        _check_unique(path, name, [getattr(task, name) for task in tasks])
    try:
        table = pa.Table.from_pydict({name: [_value(task, name) for task in tasks] for name in SCHEMA.names}, SCHEMA)
    except UnicodeEncodeError as error:
        raise RunError(
            f"{path.name}: the text {error.object!r} is not Unicode; rename the file or mend the list"
        ) from error
    with atomic_file(path) as file:
        pq.write_table(table, file, compression="zstd", version="2.6", row_group_size=ROW_GROUP)


def read_batch(path: Path) -> list[Task]:
    """Read a batch back, in its order.

    Raises:
        RunError: the file is not there, is no Parquet, or is no batch of this version.
    """
    with reading_batch(path):
        table = pq.read_table(path)
    found = (table.schema.metadata or {}).get(FORMAT_KEY)
    if found != FORMAT or table.schema.names != SCHEMA.names:
        what = "another Parquet file" if found is None else f"format {found.decode(errors='replace')!r}"
        raise RunError(f"{path}: expected a batch of tasks of format {FORMAT.decode()!r}, found {what}; use the program that "
                       "made it, or start a new run")  # fmt: skip
    return [task_of(row) for part in table.to_batches(max_chunksize=ROWS) for row in part.to_pylist()]


def read_columns(path: Path, *names: str) -> list[list[Any]]:
    """Return the values of some columns of SCHEMA, in the batch's order: no task is made. Raises RunError as `read_batch`."""
    with reading_batch(path):
        table = pq.read_table(path, columns=list(names))
    return [table[name].to_pylist() for name in names]


@contextmanager
def reading_batch(path: Path) -> Iterator[None]:
    """Say of a batch that cannot be read what it is. Raises RunError."""
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"{path}: there is no such batch; is this the folder of a run?") from error
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(f"{path}: expected a batch of tasks (Parquet), found a file that cannot be read ({reason}); copy it "
                       "again from the run that made it") from error  # fmt: skip


def _check_unique(path: Path, name: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise RunError(f"{path.name}: the {name} {value!r} comes twice in one batch; give every object its own")
        seen.add(value)


def _value(task: Task, name: str) -> Any:
    if name in PROVENANCE:
        return getattr(task.provenance, name)
    if name.startswith("refusal_"):
        return None if task.refusal is None else getattr(task.refusal, name.removeprefix("refusal_"))
    return getattr(task, name)


def task_of(row: dict[str, Any]) -> Task:
    """Return the task of a batch's row, which is used up."""
    provenance = Provenance(**{name: row.pop(name) for name in PROVENANCE})
    refusal = {name: row.pop(f"refusal_{name}") for name in REFUSAL}
    return Task(**row, provenance=provenance, refusal=None if refusal["reason"] is None else Refusal(**refusal))
