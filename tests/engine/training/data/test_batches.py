"""What a process learns from: the same whoever reads it, taken up exactly, bad samples counted and too many refused."""

import logging
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from engine.training.data.batches import collate, loader
from engine.training.data.clips import ClipMaker
from engine.training.data.sources import find_shards
from engine.training.plans import DataPlan
from engine.training.types import Position
from tests.engine.training.data.readers import (
    PLAN,
    all_ranks,
    learned,
    read,
    shards_of,
    spoil,
    spoiled_inside,
    told,
    uids,
)
from tests.engine.training.small_orbits import (
    VIEWS,
    picture_files,
    small_orbit,
    small_shards,
    write_tar,
)  # fmt: skip


# ---------------------------------------------------------------- a batch
def test_clips_are_stacked_over_their_backgrounds() -> None:
    plan = replace(PLAN, depth=True, degrade=True)
    maker = ClipMaker(plan, 0)
    clips = [maker.from_images(small_orbit(n, depth=True), Position(0, n, 0)) for n in range(3)]
    batch = collate(clips)
    assert tuple(batch.pixels.shape) == (3, VIEWS, 3, 16, 16)
    for k, clip in enumerate(clips):
        alpha = clip.rgba[..., 3:].astype(float) / 255
        expected = clip.rgba[..., :3] / 255 * alpha + np.array(clip.background) * (1 - alpha)
        assert np.abs(batch.pixels[k].permute(0, 2, 3, 1).numpy() - (2 * expected - 1)).max() < 1e-6  # float32
        assert np.abs(batch.alpha[k, :, 0].numpy() - alpha[..., 0]).max() < 1e-6
        assert np.array_equal(batch.depth_m[k].numpy(), clip.depth_m)
        assert np.array_equal(((batch.degraded[k] + 1) * 127.5).round().permute(0, 2, 3, 1).numpy(), clip.degraded)
        assert batch.orbits[k] is clip.orbit
    solid = batch.alpha == 1
    exact = torch.from_numpy(np.stack([clip.rgba[..., 0] for clip in clips])) / 127.5 - 1
    assert torch.allclose(batch.pixels[:, :, :1][solid], exact[:, :, None][solid], atol=1e-6)
    with pytest.raises(ValueError, match="must all have, or all lack"):
        collate([clips[0], replace(clips[1], depth_m=None)])


# ---------------------------------------------------------------- who reads does not matter
def test_two_processes_see_the_global_batches_of_one(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 7)
    one = read(shards, 12, batch_size=2)
    two = all_ranks(shards, 12, 2)
    assert [told([batch]) for batch in one] == [told(step) for step in two]
    assert sorted(uids(one)[:7]) == sorted(set(uids(one)))


@pytest.mark.parametrize(
    ("ranks", "batch_size", "workers"), [(1, 6, 2), (2, 3, 0), pytest.param(3, 2, 2, marks=pytest.mark.slow)]
)
def test_nor_do_workers(tmp_path: Path, ranks: int, batch_size: int, workers: int) -> None:
    shards = shards_of(tmp_path, 7)
    one = read(shards, 3, batch_size=6)
    every = all_ranks(shards, 3, ranks, batch_size=batch_size, workers=workers)
    assert [told([batch]) for batch in one] == [told(step) for step in every]


def test_neither_do_bad_samples(tmp_path: Path) -> None:
    """One that shows at once, and one that only who decodes it finds out about."""
    shards = shards_of(tmp_path, 9)
    spoil(Path(shards.urls[0]), {"object-003": lambda data: data[:50], "object-007": spoiled_inside})
    one = read(shards, 12, batch_size=2)
    two = all_ranks(shards, 12, 2)
    assert [told([batch]) for batch in one] == [told(step) for step in two]
    assert set(uids(one)) == {f"object-{n:03d}" for n in (0, 1, 2, 4, 5, 6, 8)}


def test_readers_with_shards_of_their_own_read_all_of_them_once(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 2, 2, 2, 2)
    steps = all_ranks(shards, 4, 2)
    assert sorted(uids(batch for step in steps for batch in step)) == [f"object-{n:03d}" for n in range(8)]


def test_the_global_generators_are_left_alone(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 4)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global one is what this is about
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = told(read(shards, 5, replace(PLAN, degrade=True), workers=2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    torch.manual_seed(6)
    assert told(read(shards, 5, replace(PLAN, degrade=True), workers=0)) == first


def test_shards_come_through_urls_in_workers(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 3)
    fsspec.filesystem("memory").pipe("/batches/a.tar", Path(shards.urls[0]).read_bytes())
    there = find_shards(["memory://batches/a.tar"])
    assert told(read(there, 4, workers=1)) == told(read(shards, 4))


# ---------------------------------------------------------------- going on
@pytest.mark.parametrize("counts", [(5,), (2, 3, 2, 1, 2)])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (2, 0), (1, 3), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_going_on_is_exact(tmp_path: Path, counts: tuple[int, ...], ranks: int, workers: int) -> None:
    shards = shards_of(tmp_path, *counts)
    whole = all_ranks(shards, 8, ranks, workers=workers, batch_size=2)
    after = learned(batch for step in whole[:4] for batch in step)
    rest = all_ranks(shards, 4, ranks, workers=workers, batch_size=2, start_after=after)
    assert [told(step) for step in rest] == [told(step) for step in whole[4:]]
    again = learned(batch for step in (*whole[:4], rest[0]) for batch in step)  # and once more
    last = all_ranks(shards, 2, ranks, workers=workers, batch_size=2, start_after=again)
    assert [told(step) for step in last] == [told(step) for step in whole[5:7]]


def test_going_on_from_what_this_rank_alone_remembers(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 5)
    whole = all_ranks(shards, 8, 2)
    for rank in range(2):
        after = learned(step[rank] for step in whole[:3])
        rest = read(shards, 5, rank=rank, ranks=2, start_after=after)
        assert told(rest) == told(step[rank] for step in whole[3:])


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_with_pictures_and_a_mixture(tmp_path: Path, workers: int) -> None:
    first, second = small_shards(tmp_path, [6, 3])
    write_tar(tmp_path / "pictures.tar", [file for n in range(5) for file in picture_files(n)])
    options = {
        "plan": replace(PLAN, picture_share=0.4), "pictures": find_shards([f"{tmp_path}/pictures.tar"]),
        "workers": workers,
    }  # fmt: skip
    shards = find_shards([f"{first}@1", f"{second}@2"])
    whole = read(shards, 20, **options)
    assert sum(batch.orbits is None for batch in whole) == 8
    for done in (1, 9):
        rest = read(shards, 20 - done, start_after=learned(whole[:done]), **options)
        assert told(rest) == told(whole[done:])


def test_going_on_past_bad_samples(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 6)
    spoil(Path(shards.urls[0]), {"object-003": spoiled_inside})
    whole = read(shards, 10)
    place = next(k for k in range(9) if whole[k].uids == whole[k + 1].uids)  # the next one stands in
    for done in (place, place + 1, place + 2):
        assert told(read(shards, 11 - done, start_after=learned(whole[:done])))[: 10 - done] == told(whole[done:])


def test_skipping_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = shards_of(tmp_path, 9)
    after = learned(read(shards, 7))
    decoded = []
    real = ClipMaker.clip
    monkeypatch.setattr(ClipMaker, "clip", lambda *given: decoded.append(given) or real(*given))
    read(shards, 2, start_after=after)
    assert len(decoded) == 2


def test_other_processes_go_on_at_the_same_share_and_say_so(tmp_path: Path, caplog) -> None:
    shards = shards_of(tmp_path, *([5] * 8))  # 40 samples
    whole = [read(shards, 30, rank=rank, ranks=2)[-1] for rank in range(2)]  # half of the second pass
    after = learned(whole)
    with caplog.at_level(logging.WARNING):
        four = all_ranks(shards, 1, 4, start_after=after)
    assert "the data was read by 2 processes with 1 workers each, now by 4 with 1" in caplog.text
    for batch in four[0]:
        assert (batch.positions[0].epoch, batch.positions[0].index) == (1, 5)  # of ten a pass
    ten = read(shards, 1, workers=2, ranks=5, start_after=after)[0].positions[0]
    assert (ten.epoch, ten.index) == (1, 20)  # ten readers, eight shards: of the forty that all walk


def test_shared_shards_go_on_exactly_with_other_processes(tmp_path: Path, caplog) -> None:
    shards = shards_of(tmp_path, 7)
    whole = read(shards, 12, batch_size=2)
    rest = all_ranks(shards, 7, 2, start_after=learned(whole[:5]))
    assert [told(step) for step in rest] == [told([batch]) for batch in whole[5:]]
    assert "now by 2 with 1" in caplog.text


# ---------------------------------------------------------------- validation
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (3, 0), (2, 3)])
def test_one_pass_has_every_sample_once_as_stored(tmp_path: Path, ranks: int, workers: int) -> None:
    shards = shards_of(tmp_path, 4, 3)
    made = [
        loader(PLAN, shards, batch_size=2, seed=0, rank=r, ranks=ranks, workers=workers, endless=False)
        for r in range(ranks)
    ]
    every = [list(one) for one in made]
    assert sorted(uids(batch for rank in every for batch in rank)) == [f"object-{n:03d}" for n in range(7)]
    assert sum(one.counts.good for one in made) == 7
    if ranks == 1:
        assert uids(every[0]) == [f"object-{n:03d}" for n in range(7)]
        assert [len(batch) for batch in every[0]] == [2, 2, 2, 1]
        again = list(made[0])
        assert told(again[:3]) == told(every[0][:3])
        assert all(batch.starts == (0,) * len(batch) for batch in again)
    assert {b.pixels[0, 0, :, 0, 0].tolist() == [1, 1, 1] for rank in every for b in rank} == {True}


def test_more_readers_than_samples(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, 2)
    first = [told([step[0]])[0] for step in all_ranks(shards, 3, 5)]
    assert first == [told([batch])[0] for batch in read(shards, 3, batch_size=5)]
    assert [len(read(shards, 9, rank=rank, ranks=5, endless=False)) for rank in range(5)] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"rank": 1}, {"ranks": 0}, {"workers": -1}])
def test_numbers_that_make_no_sense(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
        loader(PLAN, shards_of(tmp_path, 1), **{"batch_size": 1, "seed": 0} | wrong)


# ---------------------------------------------------------------- the project's own orbits
@pytest.mark.parametrize("ring", ["ring24", "ring16"])
def test_real_orbits(repository: Path, ring: str) -> None:
    folder = repository.parent / "shared" / "data" / "orbits128"
    if not folder.is_dir():
        pytest.skip(f"no shards: {folder} is not here")
    views = int(ring[4:])
    plan = DataPlan(orbit=ring, views=views, size_px=64, mirror=0.5, colour=0.5, rebase=True, caption="object")
    (batch,) = read(find_shards([f"{folder}/*-val-*.tar"]), 1, plan, batch_size=3)
    assert tuple(batch.pixels.shape) == (3, views, 3, 64, 64)
    assert all(np.allclose(orbit.azimuth_deg, np.arange(views) * 360 / views) for orbit in batch.orbits)
    assert all(batch.captions)
