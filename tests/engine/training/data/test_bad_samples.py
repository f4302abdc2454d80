"""Samples that cannot be learned from: counted, named, skipped, and refused where they are too many."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from engine.errors import TrainingError
from engine.files import write_shard
from engine.training.data import tally
from engine.training.data.batches import loader
from engine.training.data.sources import find_shards
from engine.training.data.tally import Counts
from tests.engine.training.data.readers import PLAN, read, shards_of, spoil, spoiled_inside, uids
from tests.engine.training.small_orbits import (
    rewrite,
    small_orbit,
    small_shards,
    without_views,
)  # fmt: skip

# ---------------------------------------------------------------- bad samples


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("spoiling", "detail"),
    [
        (lambda data: data[:60], "object-001.ring6.rgba_02.webp is cut off or no WebP"),
        (lambda data: b"not a picture", "object-001.ring6.rgba_02.webp is cut off or no WebP"),
        (lambda data: None, "object-001.ring6.rgba_02.webp is missing"),
        (spoiled_inside, "object-001.ring6.rgba_02.webp is truncated or not a WEBP"),
    ],
)
def test_a_corrupt_sample_is_skipped_counted_and_named(tmp_path: Path, caplog, workers, spoiling, detail) -> None:
    shards = shards_of(tmp_path, 5)
    spoil(Path(shards.urls[0]), {"object-001": spoiling})
    made = loader(PLAN, shards, batch_size=1, seed=0, workers=workers)
    batches = list(islice(made, 20))
    assert {int(uid[-3:]) for uid in uids(batches)} == {0, 2, 3, 4}
    assert made.counts.good >= 14
    assert 3 <= made.counts.bad["damaged"] <= 6
    assert detail in made.counts.names[0]
    if not workers:  # workers log in their own processes
        assert "skipped: object-001.ring6" in caplog.text


@pytest.mark.parametrize(
    ("json_change", "detail"),
    [
        (lambda data: data[:-20], "its json is broken"),
        (lambda data: b"[1, 2]", "its json must hold an object, found list"),
        (lambda data: None, "its json is missing"),
        (lambda data: data.replace(b'"uid": "object-001"', b'"uid": "object-009"'), "name and content must agree"),
        (lambda data: data.replace(b'"camera_axes": "opencv"', b'"camera_axes": "opengl"'), "camera_axes must be 'opencv'"),
        (lambda data: data.replace(b'"width": 16, "height": 16', b'"width": 17, "height": 17'), "17"),
    ],
)  # fmt: skip
def test_broken_json(tmp_path: Path, json_change, detail: str) -> None:
    shards = shards_of(tmp_path, 4)
    rewrite(Path(shards.urls[0]), lambda name, data: json_change(data) if name == "object-001.ring6.json" else data)
    made = loader(PLAN, shards, batch_size=1, seed=0)
    assert set(uids(islice(made, 8))) == {"object-000", "object-002", "object-003"}
    assert detail in made.counts.names[0]


def test_more_than_a_share_is_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "ENOUGH", 20)
    monkeypatch.setattr(tally, "ALLOWED", 0.1)
    shards = shards_of(tmp_path, 20)
    spoil_json(Path(shards.urls[0]), {7, 11})  # 2 of 20 samples are a tenth
    made = loader(PLAN, shards, batch_size=2, seed=0)
    assert len(set(uids(islice(made, 9)))) == 18
    assert made.counts.bad["damaged"] >= 2
    spoil_json(Path(shards.urls[0]), {7, 11, 15})
    with pytest.raises(TrainingError) as caught:
        list(islice(loader(PLAN, shards, batch_size=2, seed=0), 30))
    text = str(caught.value)
    assert text.startswith(f"{shards.urls[0]}: 3 of the first 2")
    assert "samples are bad, more than 10%: object-0" in text
    assert "(its json is broken" in text
    assert "\n" not in text


def test_the_limit_is_one_in_a_hundred_of_two_hundred() -> None:
    tally.check(Counts(198, {"damaged": 2}), "a.tar")
    tally.check(Counts(100, {"damaged": 99}), "a.tar")
    with pytest.raises(
        TrainingError, match=r"a\.tar: 3 of the first 200 samples are bad, more than 1%: x; repair them"
    ):
        tally.check(Counts(197, {"damaged": 3}, names=("x",)), "a.tar")


def spoil_json(path: Path, which: set[int]) -> None:
    rewrite(path, lambda name, data: b"{" if name.endswith("json") and int(name[7:10]) in which else data)


@pytest.mark.parametrize("workers", [0, 2])
def test_all_bad_ends_at_once(tmp_path: Path, workers: int) -> None:
    shards = shards_of(tmp_path, 21)
    rewrite(Path(shards.urls[0]), lambda name, data: b"{" if name.endswith("json") else data)
    with pytest.raises(TrainingError) as caught:
        read(shards, 1, workers=workers)
    assert str(caught.value).startswith(f"{shards.urls[0]}: all of the first 20 samples are bad: object-")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"size_px": 32}, "shards hold 16 px, the recipe trains at 32: render larger ones, or train smaller (turntable train --size-px 16)"),
        ({}, {"orbit": "*", "views": 24}, "shards hold orbits of 6 views, the recipe trains on 24: name others, or render them with turntable-farm run --views 24"),
        ({}, {"depth": True}, "samples have no depth, the recipe needs it: render again with turntable-farm run --passes depth"),
        ({"caption": ""}, {}, "samples have neither caption nor label, the recipe learns from them: write caption into their json, or seal them again with turntable-farm run --captions"),
        ({}, {"orbit": "ring24"}, "shards hold ring6, the recipe takes ring24: name shards of ring24, or a recipe of ring6"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("endless", "count"), [(True, 25), (False, 3)])
def test_what_no_sample_has_is_said_as_what_it_is(tmp_path, options, change, message, endless, count) -> None:
    shards = shards_of(tmp_path, count, **options)
    with pytest.raises(TrainingError) as caught:
        read(shards, 1, replace(PLAN, **change), endless=endless)
    assert str(caught.value) == f"{shards.urls[0]}: {message}"


def test_some_without_caption_are_bad_samples(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.tar", [small_orbit(0), small_orbit(1, caption=""), small_orbit(2)])
    made = loader(PLAN, find_shards([str(tmp_path)]), batch_size=1, seed=0)
    assert set(uids(islice(made, 6))) == {"object-000", "object-002"}
    assert made.counts.names == ("object-001.ring6 (has neither caption nor label)",)


def test_orbits_of_other_shapes_are_told_apart(tmp_path: Path) -> None:
    few = without_views(small_orbit(1), 3)
    write_shard(tmp_path / "a.tar", [small_orbit(0), few, small_orbit(2, size=8)])
    made = loader(PLAN, find_shards([str(tmp_path)]), batch_size=1, seed=0)
    assert set(uids(islice(made, 4))) == {"object-000"}
    assert set(made.counts.bad) == {"too few views", "too small"}


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "shards are empty; render orbits into them"), (b"\0" * 10240, "shards are empty")]
)
def test_empty_shards(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(TrainingError, match=f"^{tmp_path}: {message}"):
        read(find_shards([str(tmp_path)]), 1)


def test_a_cut_off_shard_counts_as_one(tmp_path: Path) -> None:
    _, second = small_shards(tmp_path, [4, 4])
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2])
    made = loader(PLAN, find_shards([str(tmp_path)]), batch_size=1, seed=0, endless=False)
    assert len(uids(made)) in (5, 6)
    assert made.counts.bad == {"cut off": 1}
    assert f"{second} (is cut off or damaged in sample object-00" in made.counts.names[0]
