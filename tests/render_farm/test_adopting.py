"""G-Objaverse's folders become shards that verify and stream like our own."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.files import iter_shard
from render_farm.adopting import adopt_gobjaverse, find_objects
from render_farm.cli import main
from render_farm.errors import RunError
from render_farm.gobjaverse import read_gobjaverse
from render_farm.shards import list_receipts, open_output, read_receipt, verify
from tests.render_farm.test_gobjaverse import all_cameras, write_gobjaverse


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three objects as they are nested on the server, one of them incomplete."""
    root = tmp_path_factory.mktemp("download")
    for index, name in enumerate(("0/10001", "0/10002", "1/20001")):
        write_gobjaverse(root / name, all_cameras(8.0 + index))
    shutil.rmtree(root / "1" / "20001" / "campos_512_v4" / "00007")
    return root


def test_uids_are_paths(download: Path, tmp_path: Path) -> None:
    assert list(find_objects(download)) == ["0_10001", "0_10002", "1_20001"]
    with pytest.raises(RunError, match=r"expected folders of G-Objaverse \(campos_512_v4/00000/00000.json ...\) in it"):
        find_objects(tmp_path)


def test_uids_that_would_be_one_are_told_apart(tmp_path: Path) -> None:
    for name in ("0_1/2", "0/1_2", "3"):
        (tmp_path / name / "campos_512_v4" / "00000").mkdir(parents=True)
    found = find_objects(tmp_path)
    assert sorted(found.values()) == sorted(tmp_path / name for name in ("0_1/2", "0/1_2", "3"))
    assert found["3"] == tmp_path / "3"


@pytest.mark.slow
def test_shards_hold_what_was_downloaded(download: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, captions = tmp_path / "out", tmp_path / "cap3d.csv"
    captions.write_text('0_10001,"A ball, grey"\n')
    order = ["gobjaverse", str(download), "--out", str(out), "--shard-objects", "2", "--captions", str(captions)]
    assert main([*order, "--processes", "2"]) == 0
    assert capsys.readouterr().out.startswith("2 objects, 76 views in ")  # 24 + 2 + 12 each
    output = open_output(str(out))
    assert verify(output) == []
    found = {
        images.uid + images.orbit.name: images
        for path in sorted(out.glob("shards/*.tar"))
        for images in iter_shard(path)
    }
    assert len(found) == 6
    for images in read_gobjaverse(download / "0" / "10001", "0_10001"):
        stored = found["0_10001" + images.orbit.name]
        np.testing.assert_array_equal(stored.rgba, images.rgba)
        np.testing.assert_array_equal(stored.orbit.T_world_camera, images.orbit.T_world_camera)
        assert stored.caption == "A ball, grey"
    failed = [r for shard in list_receipts(output) for r in read_receipt(output, shard).records if r.refusal]
    assert [(r.uid, r.refusal.reason if r.refusal else "") for r in failed] == [("1_20001", "malformed")]
    before = {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
    assert adopt_gobjaverse(download, str(out), shard_objects=2) == 0  # all sealed: nothing is read again
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("shards/*")}
