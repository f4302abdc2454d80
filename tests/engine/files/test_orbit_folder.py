"""`orbit/1` in folders: exact round trips, and every rejection by name."""

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import OrbitError
from engine.files import OrbitImages, find_orbit, read_orbit, validate_orbit, write_orbit
from engine.files.images import encode_depth, encode_webp

BOXES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same_facts(a: OrbitImages, b: OrbitImages) -> None:
    """Everything but the images is equal, to the last bit."""
    arrays = {"rgba", "depth_m", "normal", "albedo", "orbit"}
    for field in fields(OrbitImages):
        if field.name not in arrays:
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    for field in fields(a.orbit):
        assert np.array_equal(getattr(a.orbit, field.name), getattr(b.orbit, field.name)), field.name


@BOXES
@given(seed=st.integers(0, 10**6), views=st.integers(1, 5), width=st.integers(1, 17), height=st.integers(1, 17))
def test_a_round_trip_is_exact(tmp_path_factory, make_orbit, seed, views, width, height) -> None:
    images = make_orbit(seed, views=views, width=width, height=height)
    folder = tmp_path_factory.mktemp("orbit")
    read = read_orbit(write_orbit(folder, images))
    same_facts(read, images)
    assert np.array_equal(read.rgba, images.rgba)  # the colour under alpha 0 too
    assert np.array_equal(read.albedo, images.albedo)
    step = images.depth_m.max() / 65535
    # rounding to the nearest step, and float32
    assert np.abs(read.depth_m - images.depth_m).max() <= 0.5 * step + 1e-6
    assert np.array_equal(read.depth_m > 0, images.depth_m > 0)
    assert read.depth_m.max() == images.depth_m.max()
    there = np.linalg.norm(images.normal, axis=-1) > 0.5
    assert np.array_equal(np.linalg.norm(read.normal, axis=-1) > 0.5, there)
    # 8 bits: half a step of 1/127.5 in each of three axes is sqrt(3) * 0.0039 = 0.0068 at most
    assert np.abs(read.normal - images.normal)[there].max(initial=0) < 0.0068
    assert np.allclose(np.linalg.norm(read.normal, axis=-1)[there], 1, atol=1e-6)  # float32


def test_reading_and_writing_again_changes_no_depth(tmp_path: Path, make_orbit) -> None:
    first = read_orbit(write_orbit(tmp_path / "a", make_orbit(3)))
    second = read_orbit(write_orbit(tmp_path / "b", first))
    assert np.array_equal(first.depth_m, second.depth_m)
    assert np.array_equal(first.rgba, second.rgba)


def test_tiny_depths_are_not_turned_into_nothing(tmp_path: Path, make_orbit) -> None:
    images = make_orbit(3)
    depth = images.depth_m.copy()
    depth[0, 0, 0], depth[0, 0, 1] = 1e-7, 60.0
    read = read_orbit(write_orbit(tmp_path, replace(images, depth_m=depth)))
    assert 0 < read.depth_m[0, 0, 0] <= 60.0 / 65535 * 1.001


@pytest.mark.parametrize("quality", ["lossless", 88])
def test_views_that_fill_the_frame_keep_their_alpha(tmp_path: Path, make_orbit, quality) -> None:
    images = make_orbit(4, passes=False)
    opaque = images.rgba.copy()
    opaque[..., 3] = 255
    read = read_orbit(write_orbit(tmp_path, replace(images, rgba=opaque), quality=quality))
    assert np.array_equal(read.rgba, opaque)


def test_lossy_keeps_alpha_and_is_near(tmp_path: Path, make_orbit) -> None:
    images = make_orbit(5, width=64, height=64, passes=False)
    ramp = np.linspace(40, 200, 64).astype(np.uint8)
    rgba = np.broadcast_to(ramp[None, :, None, None], images.rgba.shape).copy()
    rgba[..., 3] = 255
    rgba[:, :8, :, 3] = 0
    read = read_orbit(write_orbit(tmp_path, replace(images, rgba=rgba), quality=90))
    assert np.array_equal(read.rgba[..., 3], rgba[..., 3])
    difference = np.abs(read.rgba[:, 12:].astype(int) - rgba[:, 12:])
    assert 0 < difference.max() < 12  # lossy, but a smooth ramp stays near


def test_file_names_and_json_are_the_formats(tmp_path: Path, make_orbit) -> None:
    path = write_orbit(tmp_path, make_orbit(6, views=2))
    assert path.name == "object-6.ring2.json"
    kinds = {f"object-6.ring2.{k}_{v:02d}.{e}" for k, e in
             (("rgba", "webp"), ("depth", "png"), ("normal", "webp"), ("albedo", "webp")) for v in (0, 1)}  # fmt: skip
    assert {p.name for p in tmp_path.iterdir()} == kinds | {path.name}
    document = json.loads(path.read_bytes())
    expected = ["orbit/1", "opencv", "+z", "straight", "world", "things", "sRGB, Standard view transform"]
    keys = ["format", "camera_axes", "world_up", "alpha", "normal_space", "category", "color"]
    assert [document[key] for key in keys] == expected
    depth = np.asarray(Image.open(tmp_path / "object-6.ring2.depth_00.png"))
    assert depth.dtype == np.uint16


def test_writing_again_removes_the_views_and_passes_of_before(tmp_path: Path, make_orbit) -> None:
    write_orbit(tmp_path, make_orbit(6))
    fewer = replace(make_orbit(6, passes=False))
    read = read_orbit(write_orbit(tmp_path, fewer))
    assert (read.depth_m, read.normal, read.albedo) == (None, None, None)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_is_enough_where_it_holds_one_orbit(tmp_path: Path, make_orbit) -> None:
    write_orbit(tmp_path, make_orbit(7), json_name="orbit.json")
    (tmp_path / "report.json").write_text("{}")
    assert read_orbit(tmp_path).uid == "object-7"
    write_orbit(tmp_path, make_orbit(8))
    with pytest.raises(OrbitError) as caught:
        validate_orbit(tmp_path)
    assert str(caught.value) == f"{tmp_path}: holds 2 orbits (object-8.ring3.json, orbit.json); say which"
    for which in ("object-8.ring3", "object-8", "ring3", "object-8.ring3.json"):
        assert read_orbit(tmp_path, which).uid == "object-8"
    assert find_orbit(tmp_path, "orbit.json").name == "orbit.json"
    with pytest.raises(OrbitError, match="holds no orbit json called ring99"):
        find_orbit(tmp_path, "ring99")
    with pytest.raises(OrbitError, match="there is no such orbit"):
        read_orbit(tmp_path / "nowhere")


def edit_pose(change: Callable[[np.ndarray], object]) -> Callable[[dict], None]:
    def edit(document: dict) -> None:
        pose = np.array(document["T_world_camera"][1])
        change(pose)
        document["T_world_camera"][1] = pose.tolist()

    return edit


def assign(key: str, value: object) -> Callable[[dict], None]:
    return lambda document: document.__setitem__(key, value)


def turn_backwards(pose: np.ndarray) -> None:
    pose[:3, [0, 2]] *= -1


def roll(pose: np.ndarray) -> None:
    pose[:3, :2] *= -1


REJECTED = [
    (lambda d: d.pop("width"), "width is missing; orbit/1 requires it"),
    (assign("format", "orbit/2"), "format must be 'orbit/1', found 'orbit/2'"),
    (assign("camera_axes", "opengl"), "camera_axes must be 'opencv', found 'opengl'"),
    (assign("world_up", "+y"), "world_up must be '+z', found '+y'"),
    (assign("alpha", "premultiplied"), "alpha must be 'straight', found 'premultiplied'"),
    (assign("color", "sRGB, AgX"), "color must be 'sRGB, Standard view transform', found 'sRGB, AgX'"),
    (assign("normal_space", "camera"), "normal_space must be 'world', found 'camera'"),
    (assign("uid", "../etc"), "uid must be letters, digits, '.', '_', '-', not beginning with '.', found '../etc'"),
    (assign("width", 12.5), "width must be a positive whole number, found 12.5"),
    (assign("height", True), "height must be a positive whole number, found True"),
    (assign("distance_m", "far"), "distance_m must be a positive finite number, found 'far'"),
    (assign("focal_px", -3), "focal_px must be a positive finite number, found -3"),
    (assign("fov_deg", 200), "fov_deg must be an angle below 180 degrees, found 200.0"),
    (assign("elevation_deg", 95), "elevation_deg must be between -90 and 90, found 95.0"),
    (assign("principal_px", [1]), "principal_px must be a list of numbers of shape 2, found shape 1"),
    (assign("azimuth_deg", [0.0]), "T_world_camera must be 1 matrices, one for each azimuth_deg, found 3"),
    (assign("azimuth_deg", []), "azimuth_deg must be a list of numbers of shape n, found shape 0"),
    (assign("azimuth_deg", [0, None, 1]), "azimuth_deg must be a list of numbers of shape n, found [0, None, 1]"),
    (assign("azimuth_deg", [0.0, float("nan"), 240.0]), "azimuth_deg[1] must be finite, found nan"),
    (lambda d: d["T_world_camera"][0].pop(), "T_world_camera must be a list of numbers of shape n x 4 x 4, found lists of different lengths"),
    (lambda d: [p.pop() for p in d["T_world_camera"]], "T_world_camera must be a list of numbers of shape n x 4 x 4, found shape 3 x 3 x 4"),
    (edit_pose(lambda p: p.__setitem__((0, 0), np.nan)), "T_world_camera[1] holds values that are not finite"),
    (edit_pose(lambda p: p[:3, :3].__imul__(1.1)), "T_world_camera[1] must have a rotation with orthonormal columns: scaled or sheared poses are not cameras"),
    (edit_pose(lambda p: p[:3, 0].__imul__(-1)), "T_world_camera[1] mirrors (determinant -1): convert it with engine.geometry.frames, do not flip one axis"),
    (edit_pose(lambda p: p.__setitem__((3, 0), 0.5)), "T_world_camera[1] must end in the row 0 0 0 1, found [0.5, 0.0, 0.0, 1.0]"),
    (edit_pose(roll), "T_world_camera[1] must be upright (its +X level, its +Y downwards), found it rolled"),
    (assign("normalisation", {"scale": 0, "centre": [0, 0, 0]}), "normalisation: scale must be a positive finite number, found 0"),
    (assign("normalisation", [1]), "normalisation must be an object with scale and centre, found [1]"),
    (assign("seed", "x"), "seed must be a whole number or null, found 'x'"),
    (assign("given_view", 3), "given_view must be the number of a view, 0 to 2, or null, found 3"),
    (assign("renderer", 1), "renderer must be an object, found 1"),
    (assign("caption", 5), "caption must be a string, found 5"),
    (assign("depth_scale_m", 0), "depth_scale_m must be a positive finite number, found 0"),
    (assign("other", float("inf")), "holds NaN or Infinity, which json does not have"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), REJECTED, ids=[message[:40] for _, message in REJECTED])
def test_a_wrong_json_is_rejected_by_name(tmp_path: Path, make_orbit, edit, message) -> None:
    path = write_orbit(tmp_path, make_orbit(9))
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(OrbitError) as caught:
        read_orbit(path)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (assign("focal_px", 20.0), r"focal_px must be [\d.]+ for fov_deg [\d.]+ at height 8, found 20.0000; fov_deg is vertical"),
        (edit_pose(turn_backwards), r"T_world_camera\[1\] must look at the origin along its \+Z \(OpenCV axes\), found the direction"),
        (edit_pose(lambda p: p[:3, 3].__imul__(1.01)), r"T_world_camera\[1\] must stand distance_m = [\d.]+ from the origin"),
        (lambda d: d["azimuth_deg"].reverse(), r"T_world_camera\[0\] must stand at .*\(azimuth_deg 240, elevation_deg"),
        (lambda d: d.__setitem__("elevation_deg", -d["elevation_deg"]), r"T_world_camera\[0\] must stand at "),
        (lambda d: d["T_world_camera"].reverse(), r"T_world_camera\[0\] must stand at "),
    ],
)  # fmt: skip
def test_cameras_that_disagree_with_their_angles_are_rejected(tmp_path: Path, make_orbit, edit, message) -> None:
    path = write_orbit(tmp_path, make_orbit(9))
    document = json.loads(path.read_bytes())
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(OrbitError, match=message):
        read_orbit(path)


def test_seven_decimals_are_near_enough(tmp_path: Path, make_orbit) -> None:
    path = write_orbit(tmp_path, make_orbit(9))
    document = json.loads(path.read_bytes())
    document["T_world_camera"] = np.round(document["T_world_camera"], 7).tolist()
    path.write_text(json.dumps(document))
    validate_orbit(path)


@pytest.mark.parametrize(("text", "message"), [(b"{", "is not whole json"), (b"[1]", "must hold a json object, found list"), (b"\xff\xfe{", "is not whole json"), (b"", "is not whole json")])  # fmt: skip
def test_a_broken_json_is_rejected(tmp_path: Path, make_orbit, text, message) -> None:
    path = write_orbit(tmp_path, make_orbit(9))
    path.write_bytes(text)
    with pytest.raises(OrbitError, match=message):
        read_orbit(path)


def opaque_rgb(height: int = 8, width: int = 10) -> bytes:
    return encode_webp(np.full((height, width, 3), 250, np.uint8))


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("rgba_01.webp", None, "rgba_01.webp is missing (2 of 3 rgba images are there); render or copy it again"),
        ("depth_02.png", None, "depth_02.png is missing (2 of 3 depth images are there); render or copy it again"),
        ("normal_00.webp", None, "normal_00.webp is missing (2 of 3 normal images are there); render or copy it again"),
        ("albedo_00.webp", None, "albedo_00.webp is missing (2 of 3 albedo images are there); render or copy it again"),
        ("rgba_00.webp", encode_webp(np.zeros((9, 10, 4), np.uint8)), "rgba_00.webp must be 10 x 8 pixels as its json says, found 10 x 9"),
        ("depth_00.png", encode_depth(np.zeros((10, 8), np.uint16)), "depth_00.png must be 10 x 8 pixels as its json says, found 8 x 10"),
    ],
)  # fmt: skip
def test_missing_and_misfitting_images_are_named(tmp_path: Path, make_orbit, file, data, message) -> None:
    write_orbit(tmp_path, make_orbit(9))
    image = tmp_path / f"object-9.ring3.{file}"
    image.unlink() if data is None else image.write_bytes(data)
    with pytest.raises(OrbitError) as caught:
        read_orbit(tmp_path)
    assert str(caught.value) == f"{tmp_path}: object-9.ring3.{message}"


def test_a_picture_without_alpha_is_rejected_unless_the_object_may_fill_the_frame(tmp_path: Path, make_orbit) -> None:
    images = make_orbit(10, passes=False)
    small = images.rgba.copy()
    small[..., 3] = 0
    small[:, 2:5, 2:5, 3] = 255
    write_orbit(tmp_path, replace(images, rgba=small))
    (tmp_path / "object-10.ring3.rgba_01.webp").write_bytes(opaque_rgb())
    with pytest.raises(OrbitError) as caught:
        read_orbit(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: object-10.ring3.rgba_01.webp must have an alpha channel (RGBA, straight), found RGB; "
        "render it with a transparent film"
    )
    large = small.copy()
    large[:, 1:, :, 3] = 255
    write_orbit(tmp_path, replace(images, rgba=large))
    (tmp_path / "object-10.ring3.rgba_01.webp").write_bytes(opaque_rgb())
    assert (read_orbit(tmp_path).rgba[1, ..., 3] == 255).all()


@pytest.mark.parametrize("file", ["rgba_01.webp", "depth_01.png", "normal_01.webp", "albedo_01.webp"])
def test_images_cut_off_anywhere_are_rejected(tmp_path: Path, make_orbit, file) -> None:
    write_orbit(tmp_path, make_orbit(11, width=16, height=16))
    image = tmp_path / f"object-11.ring3.{file}"
    whole = image.read_bytes()
    for size in (0, 1, 11, 12, 30, len(whole) // 2, len(whole) - 9, len(whole) - 2):
        image.write_bytes(whole[:size])
        with pytest.raises(OrbitError, match=rf"object-11.ring3.{file} is truncated or not a "):
            read_orbit(tmp_path)


def test_depth_must_have_sixteen_bits_and_a_scale(tmp_path: Path, make_orbit) -> None:
    path = write_orbit(tmp_path, make_orbit(9))
    image = tmp_path / "object-9.ring3.depth_00.png"
    whole = image.read_bytes()
    Image.fromarray(np.zeros((8, 10), np.uint8)).save(image)
    with pytest.raises(OrbitError, match=r"depth_00\.png must be a 16-bit greyscale PNG, found mode L"):
        read_orbit(path)
    image.write_bytes(whole)
    document = json.loads(path.read_bytes())
    del document["depth_scale_m"]
    path.write_text(json.dumps(document))
    with pytest.raises(OrbitError, match="has depth images, but its json no depth_scale_m; write it"):
        read_orbit(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: replace(i, depth_m=np.full_like(i.depth_m, 1e10)), "depth_m of view 0 must lie between 0 and .* m, found 1e\\+10"),
        (lambda i: replace(i, depth_m=np.full_like(i.depth_m, -1)), "write 0 where nothing is"),
        (lambda i: replace(i, depth_m=np.full_like(i.depth_m, np.nan)), "write 0 where nothing is"),
        (lambda i: replace(i, normal=np.full_like(i.normal, np.inf)), "normal must be finite"),
        (lambda i: replace(i, uid="a/b"), "uid must be letters"),
        (lambda i: replace(i, extra={"width": 5}), "extra holds 'width', which orbit/1 itself writes; rename it"),
        (lambda i: replace(i, extra={"a": object()}), "extra or renderer holds what json cannot"),
        (lambda i: replace(i, extra={"a": float("nan")}), "extra or renderer holds what json cannot"),
        (lambda i: replace(i, orbit=replace(i.orbit, elevation_deg=np.ones(len(i.orbit)))), "must stand at"),
        (lambda i: replace(i, orbit=i.orbit.subset([0, 1])), r"rgba must be views x height x width = \(2, 8, 10\)"),
    ],
)  # fmt: skip
def test_the_writer_refuses_what_a_reader_would_and_leaves_nothing(tmp_path: Path, make_orbit, change, message) -> None:
    with pytest.raises(OrbitError, match=message):
        write_orbit(tmp_path, change(make_orbit(12)))
    assert list(tmp_path.iterdir()) == []


def test_a_given_view_is_stored_and_followed(tmp_path: Path, make_orbit) -> None:
    """Which view is the picture itself: 1 in three views, the first of [1, 2], none of [0, 2]."""
    images = replace(make_orbit(12), given_view=1)
    read = read_orbit(write_orbit(tmp_path, images))
    assert [read.given_view, read.subset([1, 2]).given_view, read.subset([0, 2]).given_view] == [1, 0, None]
    assert make_orbit(12).subset([0]).given_view is None


def test_cameras_at_the_pole_are_read(tmp_path: Path, make_orbit) -> None:
    from engine.geometry import RING24

    top = RING24.orbit(90.0, 10, 8).subset([0, 5, 9])
    images = replace(make_orbit(13), orbit=top)
    same_facts(read_orbit(write_orbit(tmp_path, images)), images)
