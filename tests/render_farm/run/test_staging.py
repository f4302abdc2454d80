"""Staged objects are whole or not there, and what is not whole is not believed."""

import errno
import os
from pathlib import Path

import pytest

from engine.files import read_orbit
from render_farm.errors import FarmError
from render_farm.records import RECORD_NAME, read_record
from render_farm.run import staging as staging_module
from render_farm.run.owner import Owner
from render_farm.run.staging import Staging
from tests.render_farm.staged import Ball

BALL = Ball("apple")


@pytest.fixture
def folder(staging: Staging) -> Path:
    return staging.commit(BALL.record(), BALL.images(), "lossless")


def test_what_is_committed_can_be_read(staging, folder):
    assert folder == staging.path("000-000000", "apple") == staging.folder / "000-000000.apple"
    record = read_record(folder)
    assert record.stages["store_s"] > 0
    assert {name: value for name, value in vars(record).items() if name != "stages"} == {
        name: value for name, value in vars(BALL.record()).items() if name != "stages"
    }
    for images in BALL.images():
        found = read_orbit(folder / f"apple.{images.orbit.name}.json")
        assert (found.rgba == images.rgba).all()
    assert staging.find_staged() == [("000-000000", "apple")]
    assert staging.record(BALL.task, thorough=True) == record
    assert staging.size_bytes("000-000000", "apple") == sum(path.stat().st_size for path in folder.iterdir())
    assert [path.name for path in staging.folder.iterdir()] == ["000-000000.apple"]


def test_committing_again_replaces(staging, folder):
    (folder / "stray").write_text("of an attempt that nobody waited for")
    staging.commit(BALL.record(), BALL.images(), "lossless")
    assert not (folder / "stray").exists()
    assert [path.name for path in staging.folder.iterdir()] == ["000-000000.apple"]


@pytest.mark.parametrize("call", ["write_orbit", "write_bytes", "sync_folder"])
@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "disk-full"), (errno.EACCES, "write-failed")])
def test_a_file_system_that_refuses_leaves_nothing(staging, monkeypatch, call, number, reason):
    def refuse(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(staging_module, call, refuse)
    with pytest.raises(FarmError, match=rf"\[{reason}\]") as caught:
        staging.commit(BALL.record(), BALL.images(), "lossless")
    assert caught.value.stage == "staging"
    assert list(staging.folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FarmError, match=r"cannot write to .*file: Not a directory; is it writable\? \[write-failed\]"):
        Staging(tmp_path / "file").commit(BALL.record(), BALL.images(), "lossless")


def test_one_flipped_bit_is_found_by_a_thorough_look(staging, folder):
    path = folder / "apple.ring24.depth_01.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert staging.record(BALL.task, thorough=True) is None


@pytest.mark.parametrize(
    "broken", [RECORD_NAME, "apple.ring24.json", "apple.condition.json"], ids=["record", "orbit", "condition"]
)
def test_what_lacks_a_file_is_not_whole(staging, folder, broken):
    (folder / broken).unlink()
    assert staging.record(BALL.task, thorough=False) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"uid": "apple"}'])
def test_a_record_that_is_none_is_not_believed(staging, folder, text):
    (folder / RECORD_NAME).write_text(text)
    assert staging.record(BALL.task, thorough=False) is None


def test_orbits_of_another_task_are_not_believed(staging, folder):
    assert staging.record(Ball("apple", asset="another file").task, thorough=False) is None
    assert staging.record(Ball("pear").task, thorough=False) is None


def test_what_the_dead_left_is_cleared_and_the_livings_is_not(staging, folder):
    me = Owner.current()
    mine = staging.folder / f".000-000000.b.{me.host}.{me.pid}.{round(me.started)}.partial"
    dead = staging.folder / f".000-000000.c.{me.host}.{2**22 + 1}.1.partial"
    reborn = staging.folder / f".000-000000.d.{me.host}.{me.pid}.{round(me.started) - 60}.partial"
    going = staging.folder / f".000-000000.e.going.{me.host}.{2**22 + 1}.1.partial"
    for path in (mine, dead, reborn, going):
        path.mkdir()
        (path / "file").write_text("")
    assert staging.find_staged() == [("000-000000", "apple")]
    assert staging.clear_stale() == 3
    assert sorted(path.name for path in staging.folder.iterdir()) == sorted([mine.name, folder.name])


def test_removing_is_whole_too(staging, folder):
    staging.remove("000-000000", "apple")
    staging.remove("000-000000", "apple")
    assert list(staging.folder.iterdir()) == []
    assert staging.find_staged() == []
    assert Staging(staging.folder / "nowhere").find_staged() == []
