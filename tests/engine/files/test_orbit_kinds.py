"""The two younger kinds of images, and orbits that are no ring: round trips in folder and shard."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import OrbitError
from engine.files import OrbitImages, iter_shard, load_document, read_orbit, validate_shard, write_orbit, write_shard
from engine.geometry import Orbit


@pytest.fixture
def images(make_orbit, rng: np.random.Generator) -> OrbitImages:
    """A sample with every kind of image."""
    plain = make_orbit(20, views=4)
    normal = rng.normal(size=plain.normal.shape)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    there = plain.depth_m > 0
    return replace(
        plain,
        camera_normal=np.where(there[..., None], normal, 0).astype(np.float32),
        material=rng.integers(0, 256, (*there.shape, 2), dtype=np.uint8),
    )


@pytest.fixture
def sphere(images: OrbitImages) -> OrbitImages:
    """A sample whose views all have elevations and distances of their own, the poles among them."""
    orbit = Orbit.around_origin(
        "sphere", np.array([0.0, 77.25, 200.1, 359.9]), np.array([90.0, -33.3, 12.125, -90.0]),
        np.array([2.0, 1.75, 2.0 / 3.0, 3.1]), 40.0, images.orbit.width, images.orbit.height,
    )  # fmt: skip
    return replace(images, orbit=orbit)


def through(where: str, folder: Path, images: OrbitImages) -> OrbitImages:
    if where == "folder":
        return read_orbit(write_orbit(folder, images))
    write_shard(folder / "a.tar", [images])
    assert validate_shard(folder / "a.tar") == (f"{images.uid}.{images.orbit.name}",)
    return next(iter_shard(folder / "a.tar"))


@pytest.mark.parametrize("where", ["folder", "shard"])
def test_camera_normals_and_material_come_back(tmp_path: Path, images: OrbitImages, where: str) -> None:
    read = through(where, tmp_path, images)
    assert np.array_equal(read.material, images.material)
    there = images.depth_m > 0
    assert np.array_equal(np.linalg.norm(read.camera_normal, axis=-1) > 0.5, there)
    # 8 bits: half a step of 1/127.5 in each of three axes is sqrt(3) * 0.0039 = 0.0068 at most
    assert np.abs(read.camera_normal - images.camera_normal).max() < 0.0068
    assert np.abs(read.normal - images.normal)[there].max() < 0.0068  # not taken for one another
    assert (read.camera_normal.dtype, read.material.dtype) == (np.float32, np.uint8)


def test_the_files_say_what_they_hold(tmp_path: Path, images: OrbitImages) -> None:
    path = write_orbit(tmp_path, images, quality=50)
    document = json.loads(path.read_bytes())
    assert (document["normal_space"], document["camera_normal_axes"]) == ("world", "opencv")
    assert document["material_channels"] == "G roughness, B metallic"
    stored = np.asarray(Image.open(tmp_path / "object-20.ring4.material_02.webp").convert("RGB"))
    assert np.array_equal(stored[..., 1:], images.material[2])  # glTF's channels, lossless whatever the quality
    assert not stored[..., 0].any()
    assert load_document(path).facts["extra"] == images.extra  # the new keys are known, not extra


def test_samples_without_them_have_none(tmp_path: Path, make_orbit) -> None:
    path = write_orbit(tmp_path, make_orbit(20))
    read = read_orbit(path)
    assert (read.camera_normal, read.material) == (None, None)
    assert not {"camera_normal_axes", "material_channels"} & set(json.loads(path.read_bytes()))


def test_subset_takes_every_kind(images: OrbitImages) -> None:
    few = images.subset([3, 1])
    arrays = [f.name for f in fields(OrbitImages) if isinstance(getattr(images, f.name), np.ndarray)]
    assert arrays == ["rgba", "depth_m", "normal", "albedo", "camera_normal", "material"]
    for name in arrays:
        assert np.array_equal(getattr(few, name), getattr(images, name)[[3, 1]]), name


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda i: replace(i, camera_normal=np.full_like(i.camera_normal, np.nan)), "camera_normal must be finite"),
        (lambda i: replace(i, extra={"material_channels": "x"}), "extra holds 'material_channels'"),
    ],
)
def test_wrong_samples_are_rejected(tmp_path: Path, images: OrbitImages, edit, message: str) -> None:
    with pytest.raises(OrbitError, match=message):
        write_orbit(tmp_path, edit(images))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "value"), [("camera_normal_axes", "opengl"), ("material_channels", "R metallic")])
def test_other_conventions_are_rejected(tmp_path: Path, images: OrbitImages, key: str, value: str) -> None:
    path = write_orbit(tmp_path, images)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {key: value}))
    with pytest.raises(OrbitError, match=f"{key} must be .*, found '{value}'"):
        read_orbit(path)


def test_one_view_missing_is_named(tmp_path: Path, images: OrbitImages) -> None:
    write_orbit(tmp_path, images)
    (tmp_path / "object-20.ring4.camera_normal_01.webp").unlink()
    with pytest.raises(
        OrbitError, match=r"camera_normal_01\.webp is missing \(3 of 4 camera_normal images are there\)"
    ):
        read_orbit(tmp_path)


def test_writing_again_removes_them(tmp_path: Path, images: OrbitImages) -> None:
    write_orbit(tmp_path, images)
    write_orbit(tmp_path, replace(images, camera_normal=None, material=None))
    assert not [path.name for path in tmp_path.iterdir() if "camera_normal" in path.name or "material" in path.name]


@pytest.mark.parametrize("where", ["folder", "shard"])
def test_an_orbit_that_is_no_ring_comes_back_to_the_last_bit(tmp_path: Path, sphere: OrbitImages, where: str) -> None:
    read = through(where, tmp_path, sphere)
    for field in fields(Orbit):
        assert np.array_equal(getattr(read.orbit, field.name), getattr(sphere.orbit, field.name)), field.name
    assert not read.orbit.is_ring


def test_the_json_holds_one_number_where_all_views_share_it(tmp_path: Path, sphere: OrbitImages, make_orbit) -> None:
    ring = json.loads(write_orbit(tmp_path, make_orbit(20)).read_bytes())
    assert isinstance(ring["elevation_deg"], float)
    assert isinstance(ring["distance_m"], float)
    path = write_orbit(tmp_path, sphere)
    document = json.loads(path.read_bytes())
    assert document["elevation_deg"] == [90.0, -33.3, 12.125, -90.0]
    assert document["distance_m"] == [2.0, 1.75, 2.0 / 3.0, 3.1]
    path.write_text(json.dumps(document | {"elevation_deg": [1.0, 2.0]}))
    with pytest.raises(OrbitError, match="elevation_deg must be a number or a list of 4, one for each view"):
        read_orbit(path)
    path.write_text(json.dumps(document | {"distance_m": [2.0, 1.75, -1.0, 3.1]}))
    with pytest.raises(OrbitError, match=r"distance_m\[2\] must be a positive finite number"):
        read_orbit(path)
