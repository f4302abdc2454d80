"""Exports read back as their readers would: cameras to the last bit, pictures to the last pixel."""

import json
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.errors import TurntableError
from engine.files import OrbitImages
from engine.geometry import frames, project
from render_farm.errors import RunError
from render_farm.export import export
from render_farm.shards import build_manifest, open_output, read_rows
from tests.render_farm.staged import Ball, seal

BALLS = (
    Ball("apple", picture_hash="00000000000000ff"), Ball("bell", shard="000-000001", colour=(20, 200, 120)),
    Ball("copy", shard="000-000001", picture_hash="00000000000000fe"),
)  # fmt: skip
NAMES = ["apple.condition", "apple.ring24", "bell.condition", "bell.ring24", "copy.condition", "copy.ring24"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    seal(open_output(folder / "out"), folder / "staging", *BALLS)
    build_manifest(open_output(folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def truth() -> dict[str, OrbitImages]:
    """By KEY.ORBIT."""
    return {f"{ball.uid}.{images.orbit.name}": images for ball in BALLS for images in ball.images()}


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("image_format", ["webp", "png"])
def test_nerfstudio_reads_back(out: Path, tmp_path: Path, truth, image_format) -> None:
    summary = export(open_output(out), "nerfstudio", tmp_path, image_format=image_format)
    assert (summary.objects, summary.kept) == (3, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES == sorted(p.name for p in summary.paths)
    for name, images in truth.items():
        document = json.loads((tmp_path / name / "transforms.json").read_bytes())
        orbit = images.orbit
        assert (document["w"], document["h"]) == (20, 16)
        assert (document["fl_x"], document["fl_y"]) == (orbit.focal_px, orbit.focal_px)
        assert (document["cx"], document["cy"]) == orbit.principal_px
        poses = np.array([frame["transform_matrix"] for frame in document["frames"]])
        assert np.array_equal(frames.from_opengl(poses), orbit.T_world_camera)
        # NeRF's own key: the horizontal angle; half the width at the focal length
        assert np.tan(document["camera_angle_x"] / 2) * orbit.focal_px == pytest.approx(10, rel=1e-12)
        for view, frame in enumerate(document["frames"]):
            assert frame["file_path"] == f"rgba/{view:02d}.{image_format}"
            picture = Image.open(tmp_path / name / frame["file_path"])
            assert np.array_equal(np.asarray(picture.convert("RGBA")), images.rgba[view])
            steps = np.asarray(Image.open(tmp_path / name / frame["depth_file_path"])).astype(np.uint16)
            depth = steps * document["depth_unit_scale_factor"]
            # half a step of the largest depth's 65535th part, and float32
            assert np.abs(depth - images.depth_m[view]).max() < images.depth_m.max() / 65535 / 2 + 1e-6
            assert (tmp_path / name / frame["normal_file_path"]).is_file()
        assert document["turntable"]["license"] == "CC0-1.0"


def test_nerfstudio_cameras_look_along_minus_z(out: Path, tmp_path: Path) -> None:
    """Said by hand and not by frames.py: OpenGL cameras of a +Z-up world that look at the origin, upright."""
    export(open_output(out), "nerfstudio", tmp_path, uids=["apple"])
    for frame in json.loads((tmp_path / "apple.ring24" / "transforms.json").read_bytes())["frames"]:
        pose = np.array(frame["transform_matrix"])
        place = pose[:3, 3]
        assert np.allclose(pose[:3, 2], place / np.linalg.norm(place), atol=1e-12)  # backwards is away from the origin
        assert pose[2, 1] > 0  # up is up
        assert abs(pose[2, 0]) < 1e-12  # right is level


def test_opencv_reads_back(out: Path, tmp_path: Path, truth) -> None:
    export(open_output(out), "opencv", tmp_path)
    for name, images in truth.items():
        arrays, document = (
            np.load(tmp_path / name / "cameras.npz"),
            json.loads((tmp_path / name / "cameras.json").read_bytes()),
        )
        orbit = images.orbit
        rng = np.random.default_rng(3)
        for view, (entry, camera) in enumerate(zip(document["views"], orbit.cameras, strict=True)):
            for key in ("K", "R", "t"):
                assert np.array_equal(entry[key], arrays[key][view])
            points = rng.uniform(-0.5, 0.5, (20, 3))
            image = (arrays["K"][view] @ (arrays["R"][view] @ points.T + arrays["t"][view][:, None])).T
            pixels, _ = project(camera, points)
            assert np.allclose(
                image[:, :2] / image[:, 2:], pixels, atol=1e-9
            )  # pixels; rounding of two ways to compute it
            back = np.linalg.inv(np.block([[arrays["R"][view], arrays["t"][view][:, None]], [np.zeros(3), 1.0]]))
            assert np.allclose(back, orbit.T_world_camera[view], atol=1e-14)  # the inverse rounds in the last digit
            assert np.array_equal(np.asarray(Image.open(tmp_path / name / entry["rgba"])), images.rgba[view])
            material = np.asarray(Image.open(tmp_path / name / entry["material"]).convert("RGB"))
            assert np.array_equal(material[..., 1:], images.material[view])
            assert {"depth", "normal", "camera_normal", "albedo"} <= set(entry)


@pytest.mark.parametrize("kind", ["nerfstudio", "opencv", "parquet"])
def test_an_export_that_was_cut_off_goes_on(out: Path, tmp_path: Path, monkeypatch, kind) -> None:
    output = open_output(out)
    export(output, kind, tmp_path / "whole")
    read, count = type(output).get_range, 0

    def fail(self, *arguments):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return read(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(output), "get_range", fail)
        with pytest.raises(KeyboardInterrupt):
            export(output, kind, tmp_path / "cut")
    cut = content(tmp_path / "cut")
    assert cut
    assert not [name for name in cut if "partial" in name]
    assert cut.items() < content(tmp_path / "whole").items()  # what is there is whole
    calls: list[tuple[int, int]] = []
    summary = export(output, kind, tmp_path / "cut", progress=lambda done, total: calls.append((done, total)))
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert summary.kept > 0
    assert calls[-1] == (3, 3)
    again = export(output, kind, tmp_path / "cut")
    assert again.kept == len(again.paths)


def test_objects_can_be_chosen_and_duplicates_left_out(out: Path, tmp_path: Path) -> None:
    output = open_output(out)
    export(output, "opencv", tmp_path / "one", uids=["bell"])
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["bell.condition", "bell.ring24"]
    summary = export(output, "opencv", tmp_path / "two", drop_duplicates=True)
    assert summary.objects == 2
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == NAMES[:4]
    with pytest.raises(RunError, match=r"holds no object drum \(1 of 2 asked for are not there\)"):
        export(output, "opencv", tmp_path / "three", uids=["bell", "drum"])
    assert not (tmp_path / "three").exists()


def test_a_folder_of_something_else_is_not_touched(out: Path, tmp_path: Path) -> None:
    (tmp_path / "apple.ring24").mkdir()
    (tmp_path / "apple.ring24" / "mine.txt").write_text("keep")
    with pytest.raises(RunError, match=r"apple\.ring24: is there already, and no export of this program"):
        export(open_output(out), "nerfstudio", tmp_path)
    assert (tmp_path / "apple.ring24" / "mine.txt").read_text() == "keep"
    (tmp_path / "file").write_text("")
    with pytest.raises(TurntableError, match=r"cannot write .*apple\.condition: Not a directory"):
        export(open_output(out), "nerfstudio", tmp_path / "file")


def test_an_export_of_an_older_shard_is_made_again(out: Path, tmp_path: Path) -> None:
    output = open_output(out)
    export(output, "opencv", tmp_path, uids=["apple"])
    path = tmp_path / "apple.ring24" / "export.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"sha256": "0" * 64}))
    assert export(output, "opencv", tmp_path, uids=["apple"]).kept == 1


def parquet_rows(folder: Path) -> list[dict]:
    return [row for path in sorted((folder / "data").iterdir()) for row in pq.read_table(path).to_pylist()]


def test_parquet_holds_every_view(out: Path, tmp_path: Path, truth) -> None:
    output = open_output(out)
    summary = export(output, "parquet", tmp_path)
    splits = {row["uid"]: row["split"] for row in read_rows(output, "objects")}
    shards = {ball.uid: ball.shard for ball in BALLS}
    assert {p.name for p in summary.paths} == {f"{splits[uid]}-{shards[uid]}.parquet" for uid in splits}
    found = parquet_rows(tmp_path)
    assert len(found) == 3 * 5
    for row in found:
        images, view = truth[f"{row['uid']}.{row['orbit']}"], row["view"]
        assert np.array_equal(np.reshape(row["T_world_camera"], (4, 4)), images.orbit.T_world_camera[view])
        assert row["image"]["path"] == f"{row['uid']}.{row['orbit']}.rgba_{view:02d}.webp"
        assert (row["caption"], row["license"]) == (images.caption, "CC0-1.0")
        assert json.loads(row["light"]) == images.renderer["light"]


def test_datasets_decodes_the_pictures(out: Path, tmp_path: Path, truth, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    export(open_output(out), "parquet", tmp_path / "export")
    files = [str(path) for path in sorted((tmp_path / "export" / "data").iterdir())]
    dataset = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(dataset.features["image"], datasets.Image)
    assert isinstance(dataset.features["depth"], datasets.Image)
    assert len(dataset) == 15
    for row in dataset:
        images, view = truth[f"{row['uid']}.{row['orbit']}"], row["view"]
        assert np.array_equal(np.asarray(row["image"].convert("RGBA")), images.rgba[view])
        assert np.array_equal(np.reshape(row["T_world_camera"], (4, 4)), images.orbit.T_world_camera[view])
        depth = np.asarray(row["depth"]).astype(np.float64) * row["depth_scale_m"]
        assert np.abs(depth - images.depth_m[view]).max() < images.depth_m.max() / 65535 / 2 + 1e-6  # half a step
        assert row["focal_px"] == images.orbit.focal_px


def test_datasets_finds_the_splits_by_itself(out: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    copy = open_output(shutil.copytree(out, tmp_path / "out"))
    build_manifest(copy, fractions=(0.0, 0.5, 0.5))
    export(copy, "parquet", tmp_path / "export")
    expected = {{"val": "validation"}.get(row["split"], row["split"]) for row in read_rows(copy, "objects")}
    found = datasets.load_dataset(str(tmp_path / "export"), cache_dir=str(tmp_path / "cache"))
    assert set(found) == expected
    assert sum(len(part) for part in found.values()) == 15


def test_parquet_files_of_another_selection_are_refused(out: Path, tmp_path: Path) -> None:
    output = open_output(out)
    export(output, "parquet", tmp_path)
    with pytest.raises(RunError, match=r"data/.*\.parquet: belongs to another export"):
        export(output, "parquet", tmp_path, uids=["apple"])
    assert len(parquet_rows(tmp_path)) == 15


def test_a_damaged_shard_ends_an_export(out: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(out, tmp_path / "out"))
    path = broken / "shards" / "000-000000.tar"
    data = bytearray(path.read_bytes())
    data[530] ^= 1  # the first file's content begins at 512
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"000-000000\.tar: apple\.condition\.\w+\.\w+ is damaged; copy the shard again"):
        export(open_output(broken), "opencv", tmp_path / "export")
    assert not list((tmp_path / "export").iterdir())


def test_every_kind_of_picture_is_exported(truth) -> None:
    """A new kind in OrbitImages must be thought of here."""
    arrays = {f.name for f in fields(OrbitImages) if isinstance(getattr(truth["apple.ring24"], f.name), np.ndarray)}
    assert arrays == {"rgba", "depth_m", "normal", "albedo", "camera_normal", "material"}
