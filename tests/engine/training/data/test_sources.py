"""What is typed becomes shards; what is not there is named."""

from pathlib import Path

import fsspec
import pytest

from engine.errors import TrainingError
from engine.training.data.sources import find_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b-001.tar", "b-000.tar", "a.tar", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def names(shards) -> list[str]:
    return [Path(url).name for url in shards.urls]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", ["a.tar", "b-000.tar", "b-001.tar"]),
        ("b-001.tar", ["b-001.tar"]),
        ("b-*.tar", ["b-000.tar", "b-001.tar"]),
        ("b-{001,000}.tar", ["b-001.tar", "b-000.tar"]),
        ("b-{000..001}.tar", ["b-000.tar", "b-001.tar"]),
        ("{a,b-*}.tar", ["a.tar", "b-000.tar", "b-001.tar"]),
    ],
)
def test_patterns(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(find_shards([f"{folder}/{pattern}"])) == expected


def test_unweighted_patterns_are_one_source_and_name_each_shard_once(folder: Path) -> None:
    shards = find_shards([str(folder), f"{folder}/a.tar"])
    assert names(shards) == ["a.tar", "b-000.tar", "b-001.tar"]
    assert [source.weight for source in shards.sources] == [1.0]


def test_one_weight_makes_a_source_of_each_pattern(folder: Path) -> None:
    shards = find_shards([f"{folder}/a.tar@2.5", f"{folder}/b-*.tar"])
    assert [(source.pattern, source.weight, len(source.urls)) for source in shards.sources] == [
        (f"{folder}/a.tar", 2.5, 1), (f"{folder}/b-*.tar", 1.0, 2)
    ]  # fmt: skip


def test_an_at_sign_in_a_path_is_no_weight(folder: Path) -> None:
    (folder / "odd@2").write_bytes(b"x")
    assert names(find_shards([f"{folder}/odd@2"])) == ["odd@2"]


def test_urls_are_listed_by_fsspec() -> None:
    system = fsspec.filesystem("memory")
    for name in ("two.tar", "one.tar", "other.txt"):
        system.pipe(f"/listed/{name}", b"x")
    every = ("memory:///listed/one.tar", "memory:///listed/two.tar")
    for pattern in ("memory://listed", "memory://listed/*.tar"):
        assert tuple(url.replace("memory://l", "memory:///l") for url in find_shards([pattern]).urls) == every
    assert find_shards(["memory://listed/one.tar"]).urls == ("memory://listed/one.tar",)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("none.tar", "no shard found; expected a tar, a folder of tars, a glob, a brace pattern"),
        ("*.zip", "no shard found"),
        ("empty", "no shard found"),
        ("b-{000..002}.tar", "1 of 3 shards are missing: .*b-002.tar; check the path"),
        ("a.tar@0", "a weight must be above 0, found 0"),
        ("b-{000.tar", "its braces do not close"),
    ],
)
def test_errors_name_the_pattern(folder: Path, pattern: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(TrainingError, match=f"^{folder}/.*: {message}") as caught:
        find_shards([f"{folder}/{pattern}"])
    assert pattern in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_url_that_is_not_there_and_no_data_at_all() -> None:
    with pytest.raises(TrainingError, match=r"memory://nowhere/a\.tar: no shard found"):
        find_shards(["memory://nowhere/a.tar"])
    with pytest.raises(TrainingError, match="no training data was named"):
        find_shards([])
