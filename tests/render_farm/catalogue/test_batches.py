"""A batch on disk is what was written, byte for byte the same each time, and a foreign file is named as such."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from render_farm.catalogue import batches, read_batch, write_batch
from render_farm.errors import REASONS, RunError
from render_farm.records import Provenance, Refusal, Task
from render_farm.run.tasks import iter_tasks

TASK = Task("a", "/x/a.glb", ".glb", "0" * 64, 12, "k" * 32, "000-000003", Provenance("a chair", "chair", "CC0-1.0"))
texts = st.text(st.characters(exclude_categories=["Cs"]))
refusals = st.builds(Refusal, st.sampled_from(sorted(REASONS)), texts, texts, texts)
tasks = st.lists(
    st.builds(
        Task, texts, texts, texts, texts, st.integers(0, 2**62), texts, texts,
        st.builds(Provenance, texts, texts, texts, texts, texts), st.none() | refusals,
    ),
    unique_by=(lambda task: task.uid, lambda task: task.key),
)  # fmt: skip


@given(tasks)
@settings(max_examples=25, deadline=None)  # each writes and syncs a file
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, batch: list[Task]) -> None:
    path = tmp_path_factory.mktemp("batch") / "000.parquet"
    write_batch(path, batch)
    assert read_batch(path) == batch


def test_same_tasks_same_bytes(tmp_path: Path) -> None:
    batch = [replace(TASK, uid=str(i), key=str(i), refusal=Refusal("blank", "m") if i % 3 else None) for i in range(99)]
    write_batch(tmp_path / "a.parquet", batch)
    write_batch(tmp_path / "b.parquet", batch)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


@pytest.mark.parametrize(("name", "other"), [("uid", {"key": "l"}), ("key", {"uid": "b"})])
def test_twice_in_one_batch(tmp_path: Path, name: str, other: dict[str, str]) -> None:
    with pytest.raises(RunError) as caught:
        write_batch(tmp_path / "000.parquet", [TASK, replace(TASK, **other)])
    value = getattr(TASK, name)
    assert str(caught.value) == f"000.parquet: the {name} {value!r} comes twice in one batch; give every object its own"
    assert not list(tmp_path.iterdir())


def test_text_that_is_no_unicode(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        write_batch(tmp_path / "000.parquet", [replace(TASK, path="/x/\udcff.glb")])
    assert str(caught.value) == (
        "000.parquet: the text '/x/\\udcff.glb' is not Unicode; rename the file or mend the list"
    )


def test_one_shards_tasks_are_found_without_reading_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ROW_GROUP", 10)
    tasks = [replace(TASK, uid=f"u{i:03d}", key=f"{i:032x}", shard=f"000-{i // 15:06d}") for i in range(100)]
    write_batch(tmp_path / "000.parquet", tasks)
    with pq.ParquetFile(tmp_path / "000.parquet") as file:
        assert file.num_row_groups == 10
    asked = []
    read = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda self, *a, **k: asked.append(k["row_groups"]) or read(self, *a, **k)
    )
    assert list(iter_tasks(tmp_path / "000.parquet", "shard", ["000-000002"])) == tasks[30:45]
    assert list(iter_tasks(tmp_path / "000.parquet", "uid", ["u031", "u099", "v"])) == [tasks[31], tasks[99]]
    assert list(iter_tasks(tmp_path / "000.parquet", "shard", ["001-000000"])) == []
    assert asked == [[3, 4], [3, 9]]
    assert read_batch(tmp_path / "000.parquet") == tasks


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(RunError) as caught:
        read_batch(path)
    assert str(caught.value) == f"{path}: there is no such batch; is this the folder of a run?"
    path.write_bytes(b"uid,path\n")
    with pytest.raises(RunError, match="expected a batch of tasks \\(Parquet\\), found a file that cannot be read"):
        read_batch(path)
    pq.write_table(pa.table({"uid": ["a"]}), path)
    with pytest.raises(RunError) as caught:
        read_batch(path)
    assert str(caught.value) == (
        f"{path}: expected a batch of tasks of format 'tasks/1', found another Parquet file; use the program that made it, "
        "or start a new run"
    )
    write_batch(path, [TASK])
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"turntable.format": "tasks/9"}), path)
    with pytest.raises(RunError, match="found format 'tasks/9'; use the program that made it"):
        read_batch(path)
