"""Whole files or none: failures, kills and full disks leave the old file or nothing."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from engine.errors import TurntableError
from engine.files import OrbitImages, atomic_file, clear_partials, read_orbit, write_bytes, write_orbit
from engine.files.atomic import PARTIAL_SUFFIX


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half of the new")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"), atomic_file(path) as file:
        fail(file)
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == ["a.bin"]


def test_the_temporary_name_ends_in_partial_and_lies_beside_the_file(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.bin") as file:
        names = names_in(tmp_path)
        file.write(b"x")
    assert len(names) == 1
    assert names[0].startswith("a.bin.")
    assert names[0].endswith(PARTIAL_SUFFIX)
    assert names_in(tmp_path) == ["a.bin"]


def test_clear_partials_sweeps_only_partials(tmp_path: Path) -> None:
    (tmp_path / "a.json.1234.partial").write_bytes(b"")
    (tmp_path / "a.json").write_bytes(b"")
    assert clear_partials(tmp_path) == 1
    assert names_in(tmp_path) == ["a.json"]


def test_a_file_in_the_folders_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"")
    with pytest.raises(TurntableError) as caught:
        write_bytes(tmp_path / "folder" / "a.bin", b"x")
    assert str(caught.value) == f"cannot write {tmp_path}/folder/a.bin: File exists; choose another folder"


def test_a_full_disk_is_named_with_what_was_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("engine.files.atomic.os.fsync", full)
    with pytest.raises(TurntableError) as caught:
        write_bytes(tmp_path / "a.bin", bytes(1000))
    assert str(caught.value).startswith(f"disk full: cannot write {tmp_path}/a.bin: needs 1000 bytes, ")
    assert str(caught.value).endswith(" free; make room or choose another folder")
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    """A file system of 64 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs: needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_truly_full_disk_leaves_nothing_of_an_orbit(tiny_disk: Path, make_orbit) -> None:
    images: OrbitImages = make_orbit(0, views=8, width=60, height=60)  # noise: about 14 kB a view
    with pytest.raises(TurntableError, match=r"^disk full: cannot write .*_0\d\.(webp|png): needs \d+ bytes, \d+ free"):
        write_orbit(tiny_disk, images)
    assert names_in(tiny_disk) == []


def test_a_truly_full_disk_is_noticed_through_ffmpeg(tiny_disk: Path, rng) -> None:
    from engine.files import write_turntable

    noise = rng.integers(0, 256, (24, 64, 64, 3), dtype="uint8")
    with pytest.raises(TurntableError, match=r"^disk full: cannot write "):
        write_turntable(tiny_disk / "a.mp4", noise)
    assert names_in(tiny_disk) == []


WRITER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from engine.files import read_orbit, write_orbit
    images = read_orbit(Path(sys.argv[1]))
    print("ready", flush=True)
    while True:
        write_orbit(Path(sys.argv[2]), images, json_name="orbit.json")
""")


def test_whenever_the_writer_is_killed_the_reader_finds_a_whole_orbit_or_none(tmp_path: Path, make_orbit, rng) -> None:
    images: OrbitImages = make_orbit(1, views=6)
    source, target = tmp_path / "source", tmp_path / "target"
    write_orbit(source, images)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(source), str(target)], stdout=subprocess.PIPE, env=environment
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(float(rng.uniform(0.01, 0.1)))  # where in its work it dies is left to chance
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        if (target / "orbit.json").exists():
            assert (read_orbit(target).rgba == read_orbit(source).rgba).all()
    write_orbit(target, images, json_name="orbit.json")  # the next run is not disturbed by what the killed ones left
    assert (read_orbit(target).rgba == images.rgba).all()
    clear_partials(target)
    assert sorted(p.suffix for p in target.iterdir()) == sorted([".json"] + [".webp"] * 18 + [".png"] * 6)


def test_a_partial_is_never_read(tmp_path: Path, make_orbit) -> None:
    from engine.errors import OrbitError

    path = write_orbit(tmp_path, make_orbit(2))
    path.rename(f"{path}.1a2b3c4d.partial")
    with pytest.raises(
        OrbitError, match=r"holds no orbit json \(KEY.ORBIT.json or orbit.json\); was its writing cut off"
    ):
        read_orbit(tmp_path)
