"""Tar shards: same samples, same bytes; reading forwards only; damage is named after the whole samples are out."""

import io
import json
import os
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest

from engine.errors import OrbitError
from engine.files import OrbitImages, iter_shard, validate_shard, write_orbit, write_shard


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def shard(tmp_path: Path, make_orbit) -> Path:
    """Three samples: object-0, object-1, object-2."""
    path = tmp_path / "a.tar"
    assert write_shard(path, [make_orbit(seed) for seed in range(3)]) == tuple(f"object-{i}.ring3" for i in range(3))
    return path


def test_a_shard_is_the_same_bytes_in_any_order_and_from_folders(tmp_path: Path, shard: Path, make_orbit) -> None:
    again = tmp_path / "b.tar"
    samples = [make_orbit(2), write_orbit(tmp_path / "folder", make_orbit(0)), make_orbit(1)]
    write_shard(again, samples)
    assert again.read_bytes() == shard.read_bytes()
    assert names_in(tmp_path) == ["a.tar", "b.tar", "folder"]


def test_members_are_sorted_and_anonymous(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert len(names) == 3 * (1 + 4 * 3)
    assert {(m.mtime, m.uid, m.gid, m.mode, m.uname, m.gname, m.type) for m in members} == {
        (0, 0, 0, 0o644, "", "", tarfile.REGTYPE)
    }


def test_a_round_trip_gives_the_samples(shard: Path, make_orbit) -> None:
    for seed, read in enumerate(iter_shard(shard)):
        images: OrbitImages = make_orbit(seed)
        assert np.array_equal(read.rgba, images.rgba)
        assert np.array_equal(read.albedo, images.albedo)
        assert np.array_equal(read.orbit.T_world_camera, images.orbit.T_world_camera)
        assert (read.uid, read.extra, read.seed) == (images.uid, images.extra, images.seed)
    assert seed == 2
    assert validate_shard(shard) == ("object-0.ring3", "object-1.ring3", "object-2.ring3")


def test_webdataset_reads_one_key_a_sample(shard: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset(str(shard), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["object-0", "object-1", "object-2"]
    assert json.loads(samples[1]["ring3.json"])["uid"] == "object-1"
    assert {"ring3.rgba_02.webp", "ring3.depth_00.png"} <= set(samples[0])


def test_a_pipe_can_be_read(tmp_path: Path, shard: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(shard.read_bytes()))
    feeder.start()
    assert [sample.uid for sample in iter_shard(pipe)] == ["object-0", "object-1", "object-2"]
    feeder.join()


def test_an_fsspec_address_can_be_read(shard: Path) -> None:
    with fsspec.open("memory://shards/a.tar", "wb") as file:
        file.write(shard.read_bytes())
    assert len(list(iter_shard("memory://shards/a.tar"))) == 3
    with pytest.raises(OrbitError, match=r"memory://shards/none\.tar: cannot be opened"):
        list(iter_shard("memory://shards/none.tar"))


def test_a_shard_cut_off_anywhere_gives_its_whole_samples_and_then_says_so(tmp_path: Path, shard: Path) -> None:
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        starts = [member.offset for member in tar if member.name.endswith(".albedo_00.webp")]
        end = tar.offset
    cut = tmp_path / "cut.tar"
    boundary = starts[2]
    for size in (
        0,
        100,
        starts[1] - 512,
        starts[1],
        starts[1] + 600,
        boundary,
        boundary + 100,
        end - 100,
        end,
        end + 512,
    ):
        cut.write_bytes(whole[:size])
        read = []
        with pytest.raises(OrbitError, match=r"cut.tar: is cut off or damaged.*copy or seal it again"):
            read.extend(iter_shard(cut))  # extend keeps what came before the error
        read = list(iter_shard(cut, strict=False))
        complete = sum(size >= start for start in (*starts[1:], end + 1024))
        # the sample at the very end is not trusted when the tar's end is missing
        assert len(read) in (complete, max(complete - 1, 0))
    cut.write_bytes(whole[: starts[1] + 600])
    with pytest.raises(OrbitError) as caught:
        list(iter_shard(cut))
    assert str(caught.value) == (
        f"{cut}: is cut off or damaged in sample object-1.ring3, after 1 whole samples: unexpected end of data; "
        "copy or seal it again"
    )


def test_whole_samples_are_out_before_the_damage_is_reported(tmp_path: Path, shard: Path) -> None:
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[: shard.stat().st_size * 2 // 3 + 2000])
    samples = iter_shard(cut)
    assert next(samples).uid == "object-0"
    with pytest.raises(OrbitError):
        list(samples)


def test_a_damaged_header_does_not_end_the_shard_silently(shard: Path) -> None:
    with tarfile.open(shard) as tar:
        offset = [member.offset for member in tar if member.name == "object-1.ring3.depth_01.png"][0]  # noqa: RUF015
    data = bytearray(shard.read_bytes())
    data[offset + 150] ^= 0x55  # inside the checksum field
    shard.write_bytes(data)
    with pytest.raises(
        OrbitError, match=f"in sample object-1.ring3, after 1 whole samples: the header at byte {offset} is damaged"
    ):
        validate_shard(shard)


def rewrite(path: Path, change) -> None:
    """Rewrite a tar's members: change(name, data) gives the new (name, data), or None to drop it."""
    with tarfile.open(path) as tar:
        members = [(m.name, tar.extractfile(m).read()) for m in tar]
    with tarfile.open(path, "w") as tar:
        for name, data in filter(None, (change(*member) for member in members)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda n, d: None if n == "object-1.ring3.rgba_01.webp" else (n, d), "object-1.ring3.rgba_01.webp is missing"),
        (lambda n, d: None if n == "object-1.ring3.json" else (n, d), "sample object-1.ring3 has no object-1.ring3.json"),
        (lambda n, d: (n, d[:40]) if n == "object-1.ring3.rgba_01.webp" else (n, d), "rgba_01.webp is truncated or not a WEBP"),
        (lambda n, d: (n.replace("object-1", "object-x"), d), "object-x.ring3.json says that it is object-1.ring3; name and"),
    ],
)  # fmt: skip
def test_a_bad_sample_is_named_and_can_be_skipped(shard: Path, change, message, caplog) -> None:
    rewrite(shard, change)
    with pytest.raises(OrbitError, match=message):
        validate_shard(shard)
    assert [sample.uid for sample in iter_shard(shard, strict=False)] == ["object-0", "object-2"]
    assert message.split()[0] in caplog.text


def test_foreign_members_and_folders_are_passed_over(shard: Path) -> None:
    rewrite(shard, lambda n, d: (f"./train/{n}", d))
    with tarfile.open(shard, "a") as tar:
        tar.addfile(tarfile.TarInfo("README.txt"))
    assert [sample.uid for sample in iter_shard(shard)] == ["object-0", "object-1", "object-2"]


def test_what_cannot_go_into_a_shard(tmp_path: Path, make_orbit) -> None:
    path = tmp_path / "a.tar"
    with pytest.raises(OrbitError, match=r"sample object-1\.ring3 comes twice"):
        write_shard(path, [make_orbit(1), make_orbit(1)])
    with pytest.raises(OrbitError, match=r"orbit a\.b: a uid in a shard must not hold a dot"):
        write_shard(path, [replace(make_orbit(1), uid="a.b")])
    with pytest.raises(OrbitError, match="a shard needs at least one sample"):
        write_shard(path, [])
    with pytest.raises(OrbitError, match="is longer than a tar's 100 characters"):
        write_shard(path, [replace(make_orbit(1), uid="a" * 90)])
    assert names_in(tmp_path) == []


def test_the_projects_real_shards_are_read_and_written_back(tmp_path: Path, shards: Path) -> None:
    samples = list(iter_shard(shards / "ring16-test-000.tar"))  # holds a box whose front fills the frame
    assert len(samples) == 50
    assert all(sample.rgba.shape == (16, 128, 128, 4) for sample in samples)
    assert samples[0].extra == {"category": "furniture"}
    write_shard(tmp_path / "a.tar", samples[:2])
    for before, after in zip(samples, iter_shard(tmp_path / "a.tar"), strict=False):
        assert np.array_equal(before.rgba, after.rgba)
        assert (before.extra, before.seed, before.renderer) == (after.extra, after.seed, after.renderer)


@pytest.mark.slow
def test_every_real_shard_is_valid(shards: Path) -> None:
    assert sum(len(validate_shard(path)) for path in sorted(shards.glob("*.tar"))) == 2 * 682
