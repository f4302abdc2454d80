"""Commands that look at a finished run: what they print is what is there."""

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from engine.files import read_orbit
from render_farm.run.folder import Run
from render_farm.shards import open_output, read_rows
from tests.render_farm.broken_assets import pillar
from tests.render_farm.cli.commands import SPEC_FLAGS, VIEWS, WORK_FLAGS, Ended, call, call_outside

pytestmark = pytest.mark.blender

CUT = "cut_off.glb: truncated GLB: its header promises 1776 bytes, the file holds 1676; fetch it again"


@pytest.fixture
def copy(farmed, tmp_path) -> Path:
    """The run again, to be changed."""
    return Path(shutil.copytree(farmed.folder, tmp_path / "run"))


def test_run_says_what_it_did(farmed):
    assert farmed.first.out == f"{farmed.folder}/report/index.html\n"
    said = farmed.first.err
    assert "info: 3 objects added in 1 shard; 1 of them refused before rendering\n" in said
    assert re.search(r"info: 2 of 3 objects done, 1 failed; 2 in this session of [^;]* inside Cycles\n", said)
    assert f"info: manifest: 2 objects, {2 * VIEWS} views, 1 failure, 1 shard\n" in said
    assert not list(farmed.folder.parent.rglob("*.partial*"))
    assert not list((farmed.folder / "staging").iterdir())


def test_status(farmed):
    found = json.loads(call("status", farmed.folder, "--json").out)
    spec = Run.open(farmed.folder).spec.digest
    expected = {
        "objects": 3, "batches": 1, "shards": 1, "sealed": 1, "sealed_done": 2, "sealed_failed": 1, "done": 2, "failed": 1,
        "pending": 0, "busy": 0, "reasons": {"truncated": 1}, "out": str(farmed.folder), "spec": spec,
    }  # fmt: skip
    assert {name: found.pop(name) for name in expected} == expected
    assert found.pop("sessions") >= 1  # other tests may have gone on with it, in vain
    assert sorted(found) == ["bytes", "objects_per_h", "render_share", "wall_s"]
    assert 0 < found["render_share"] < 1
    assert found["objects_per_h"] == pytest.approx(2 * 3600 / found["wall_s"])
    text = call("status", farmed.folder).out
    assert "objects        3 in 1 batch\n" in text
    assert f"shards         1 of 1 sealed, in {farmed.folder}\n" in text
    assert "this machine   2 done, 1 failed, 0 waiting, 0 at work\n" in text


def test_failures(farmed):
    assert call("failures", farmed.folder) == Ended(0, f"cut_off  truncated  scanning  {CUT}\n", "")
    assert call("failures", farmed.folder, "--by", "reason") == Ended(0, "       1  truncated\n", "")
    assert call("failures", farmed.folder, "--by", "stage") == Ended(0, "       1  scanning\n", "")
    assert call("failures", farmed.folder, "--by", "message") == Ended(0, f"       1  {CUT}\n", "")
    assert call("failures", farmed.folder, "--reason", "blank") == Ended(0, "no failures\n", "")


def test_manifest(farmed, copy):
    shutil.rmtree(copy / "manifest")
    made = json.loads(call("manifest", copy, "-q").out)
    assert (made["objects"], made["failures"], made["views"], made["shards"]) == (2, 1, 2 * VIEWS, 1)
    for table in ("objects", "views", "failures"):
        assert (copy / f"manifest/{table}.parquet").read_bytes() == (
            farmed.folder / f"manifest/{table}.parquet"
        ).read_bytes()


def test_verify(farmed):
    assert call("verify", farmed.folder, "-q") == Ended(0, "all is as it was sealed\n", "")


def test_verify_notices_one_bit(copy):
    tar = next((copy / "shards").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 4
    tar.write_bytes(data)
    assert call("verify", copy, "--shallow", "-q").status == 0  # which reads no tar
    ended = call_outside("verify", copy, "-q")
    first, last = ended.err.splitlines()[0], ended.err.splitlines()[-1]
    assert (ended.status, ended.out) == (1, "")
    assert first.startswith(f"error: {tar}: ")
    assert first.endswith(" [bad-tar]")
    assert re.fullmatch(r"error: \d+ problems? found", last)


def test_verify_notices_what_is_missing(copy):
    next((copy / "receipts").glob("*.json")).unlink()
    ended = call("verify", copy, "-q")
    assert ended.status == 1
    for kind in ("missing-shard", "stray", "stale-manifest"):
        assert f" [{kind}]\n" in ended.err


def test_report(farmed, copy):
    shutil.rmtree(copy / "report")
    assert call("report", copy, "-q") == Ended(0, f"{copy}/report/index.html\n", "")
    for folder in (copy, farmed.folder):
        page = (folder / "report" / "index.html").read_text()
        assert CUT in page
        images = re.findall(r'src="([^"]+)"', page)
        assert images
        assert all(image.startswith("data:") or (folder / "report" / image).is_file() for image in images)


@pytest.mark.parametrize(
    ("kind", "cameras", "views", "picture"),
    [("nerfstudio", "transforms.json", "frames", "file_path"), ("opencv", "cameras.json", "views", "rgba")],
)
def test_export_of_folders(farmed, tmp_path, kind, cameras, views, picture):
    arguments = ("export", farmed.folder, "--kind", kind, "--target", tmp_path / "out")
    ended = call(*arguments)
    assert (ended.status, ended.out) == (0, f"{tmp_path}/out\n")
    assert ended.err == "info: 2 objects, 2 paths, 0 of them there already\n"
    for folder in (tmp_path / "out" / "blue.ring24", tmp_path / "out" / "red.ring24"):
        listed = json.loads((folder / cameras).read_text())[views]
        assert [view[picture] for view in listed] == [f"rgba/{index:02d}.webp" for index in range(VIEWS)]
        assert all((folder / view[picture]).is_file() for view in listed)
    assert call(*arguments).err == "info: 2 objects, 2 paths, 2 of them there already\n"


def test_export_of_tables(farmed, tmp_path):
    ended = call("export", farmed.folder, "--kind", "parquet", "--target", tmp_path / "out", "--uids", "red", "-q")
    assert ended == Ended(0, f"{tmp_path}/out\n", "")
    rows = [row for path in (tmp_path / "out").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {row["uid"] for row in rows} == {"red"}


def test_export_needs_a_manifest_and_what_is_asked_for(farmed, copy, tmp_path):
    ended = call("export", farmed.folder, "--kind", "opencv", "--target", tmp_path / "out", "--uids", "cut_off")
    assert ended.status == 1
    assert ended.err.startswith(f"error: {farmed.folder}: holds no object cut_off (1 of 1 asked for are not there)")
    shutil.rmtree(copy / "manifest")
    ended = call("export", copy, "--kind", "opencv", "--target", tmp_path / "out")
    message = "expected a manifest, found none; finish the run, or merge what is sealed with `turntable-farm manifest`"
    assert ended == Ended(1, "", f"error: {copy}: {message}\n")
    assert not (tmp_path / "out").exists()


def test_replay_has_the_same_cameras(farmed, tmp_path):
    ended = call("replay", farmed.folder, "red", "--out", tmp_path / "out", "--threads", "1")
    assert (ended.status, ended.out) == (0, f"{tmp_path}/out/red.ring24.json\n")
    assert re.search(
        r"info: ring24: same cameras, same light, (same pixels|pixels \d\d\.\d dB from those stored)\n", ended.err
    )
    again = read_orbit(tmp_path / "out" / "red.ring24.json")
    stored = [row for row in read_rows(open_output(str(farmed.folder)), "views") if row["uid"] == "red"]
    poses = [row["T_world_camera"] for row in sorted(stored, key=lambda row: row["view"])]
    assert again.orbit.T_world_camera.reshape(VIEWS, 16).tolist() == poses


def test_replay_of_what_is_not_there(farmed, tmp_path):
    ended = call("replay", farmed.folder, "nobody", "--out", tmp_path / "out")
    message = f"{farmed.folder}: this run has no object 'nobody'; `failures` and the manifest list the uids"
    assert ended == Ended(1, "", f"error: {message}\n")
    ended = call("replay", farmed.folder, "cut_off", "--out", tmp_path / "out")
    assert ended == Ended(1, "", f"error: {CUT} [truncated]\n")
    assert not (tmp_path / "out").exists()


def test_retry_of_no_known_reason(farmed):
    message = "there is no reason 'bad-luck'; `turntable-farm failures FOLDER --by reason` lists them"
    assert call("retry", farmed.folder, "--reason", "bad-luck") == Ended(1, "", f"error: {message}\n")


def test_no_plan_of_a_sample_that_failed(tmp_path):
    (tmp_path / "models").mkdir()
    pillar(tmp_path / "models" / "a.glb")
    # no object covers 99 % of its pictures
    ended = call("plan", tmp_path / "run", "--assets", tmp_path / "models", *SPEC_FLAGS, *WORK_FLAGS, "-q",
                 "--tiny-coverage", "0.99")  # fmt: skip
    message = "the whole sample failed (1 object), so there is no estimate; the log says why"
    assert ended == Ended(1, "", f"error: {message}\n")
