"""A folder laid out like G-Objaverse's, of a sphere whose depth and normals are known by formula, read as orbits."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from engine.errors import OrbitError
from engine.files import read_orbit, write_orbit
from engine.geometry import Orbit
from engine.geometry.frames import directions_from_unity, directions_to_unity, from_gobjaverse, to_gobjaverse
from render_farm.gobjaverse import read_gobjaverse
from render_farm.records import Provenance

SIZE, FOV_DEG = 48, 39.6
RADIUS, CENTRE = 0.3, np.array([0.05, -0.1, 0.12])
"""Off the middle, so that no mirrored or turned axis could go unnoticed."""


def all_cameras(elevation_deg: float = 12.0) -> Orbit:
    """The 40 views: ring one and its closing view, top, bottom, ring two and its closing view."""
    azimuth = np.concatenate([np.arange(25) * 15.0, [0.0, 0.0], np.arange(13) * 30.0]) + 90.0
    elevation = np.concatenate([np.full(25, elevation_deg), [90.0, -90.0], np.full(13, -3.0)])
    distance = np.concatenate([np.full(27, 1.645), np.full(13, 1.9547)])
    return Orbit.around_origin("all", azimuth % 360, elevation, distance, FOV_DEG, SIZE, SIZE)


def sphere(pose: Any, focal_px: float) -> tuple[Any, Any]:
    """Planar depth [h, w], 0 beside it, and world normals [h, w, 3] by ray casting."""
    steps = (np.arange(SIZE) + 0.5 - SIZE / 2) / focal_px
    rays = np.stack([*np.meshgrid(steps, steps), np.ones((SIZE, SIZE))], -1) @ pose[:3, :3].T
    offset = pose[:3, 3] - CENTRE
    a, b, c = (rays**2).sum(-1), rays @ offset, offset @ offset - RADIUS**2
    inside = b * b - a * c
    depth = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, 0.0)
    normal = (pose[:3, 3] + rays * depth[..., None] - CENTRE) / RADIUS
    return depth, normal * (depth > 0)[..., None]


def write_gobjaverse(root: Path, cameras: Orbit, *, distance: bool = False) -> Path:
    """Write `campos_512_v4` as the dataset has it: Unity's normals, background (0, 0, 1) and depth 0."""
    for index, pose in enumerate(cameras.T_world_camera):
        folder = root / "campos_512_v4" / f"{index:05d}"
        folder.mkdir(parents=True)
        depth, normal = sphere(pose, cameras.focal_px)
        seen = depth > 0
        rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
        rgba[seen] = (200, 100, 50, 255)
        Image.fromarray(rgba).save(folder / f"{index:05d}.png")
        Image.fromarray(rgba[..., [2, 1, 0]]).save(folder / f"{index:05d}_albedo.png")
        Image.fromarray(np.full((SIZE, SIZE, 3), (40, 90, 7), np.uint8)).save(folder / f"{index:05d}_mr.png")
        unity = np.where(seen[..., None], directions_to_unity(normal), [0.0, 0.0, 1.0])
        if distance:
            steps = (np.arange(SIZE) + 0.5 - SIZE / 2) / cameras.focal_px
            depth = depth * np.linalg.norm(np.stack([*np.meshgrid(steps, steps), np.ones((SIZE, SIZE))], -1), axis=-1)
        depth[0, 0] = 0.2  # an edge pixel gone wrong: nearer than anything can be
        data = np.concatenate([unity, depth[..., None]], -1).astype(np.float32)
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGBA": data}).write(str(folder / f"{index:05d}_nd.exr"))
        x, y, z, origin = np.round(to_gobjaverse(pose), 6).tolist()
        fov = float(np.radians(FOV_DEG))
        document = {"max_depth": 5.0, "bbox": [[-0.5] * 3, [0.5] * 3], "origin": origin, "x_fov": fov, "y_fov": fov,
                    "x": x, "y": y, "z": z}  # fmt: skip
        (folder / f"{index:05d}.json").write_text(json.dumps(document))
    return root


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gobjaverse(tmp_path_factory.mktemp("gobjaverse"), all_cameras())


@pytest.fixture
def copy(tmp_path: Path, published: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(published / "campos_512_v4", tmp_path / "campos_512_v4"))


def test_orbits(published: Path) -> None:
    known = Provenance("a ball", "ball", "CC-BY-4.0", "someone", "https://a.b")
    ring, poles, further = read_gobjaverse(published, "ball", known)
    assert [len(o.orbit) for o in (ring, poles, further)] == [24, 2, 12]
    assert [o.orbit.name for o in (ring, poles, further)] == [
        "gobjaverse_ring1", "gobjaverse_poles", "gobjaverse_ring2"
    ]  # fmt: skip
    truth = all_cameras()
    indices = [*range(24), 25, 26, *range(27, 39)]
    poses = np.concatenate([o.orbit.T_world_camera for o in (ring, poles, further)])
    # six digits in the json
    np.testing.assert_allclose(poses, truth.T_world_camera[indices], atol=1e-6)
    for name in ("azimuth_deg", "elevation_deg", "distance_m"):
        found = np.concatenate([getattr(o.orbit, name) for o in (ring, poles, further)])
        # 1e-6 m on 1.6 m is 4e-5 degrees; at a pole an arcsine turns 1e-6 into 0.08
        np.testing.assert_allclose(found, getattr(truth, name)[indices], atol=0.1 if name == "elevation_deg" else 1e-3)
    assert ring.orbit.fov_deg == pytest.approx(FOV_DEG, abs=1e-6)
    assert (ring.caption, ring.label, ring.license, ring.attribution, ring.source) == (
        "a ball", "ball", "CC-BY-4.0", "someone", "https://a.b"
    )  # fmt: skip


def test_images_against_the_formula(published: Path) -> None:
    for images in read_gobjaverse(published, "ball"):
        assert images.depth_m is not None
        assert images.normal is not None
        assert images.albedo is not None
        assert images.material is not None
        for index, camera in enumerate(images.orbit.cameras):
            depth, normal = sphere(camera.T_world_camera, camera.focal_px)
            seen = (images.rgba[index, ..., 3] > 0) & (depth > 0)
            assert seen.sum() > 100
            # the pose's sixth digit moves the rim, where depth is steep
            assert np.quantile(np.abs(images.depth_m[index] - depth)[seen], 0.99) < 1e-4
            assert np.quantile(np.abs(images.normal[index] - normal)[seen].max(-1), 0.99) < 1e-3
            assert not images.depth_m[index][~seen].any()
            assert not images.normal[index][~seen].any()
            assert (images.rgba[index][seen] == (200, 100, 50, 255)).all()
            assert (images.albedo[index][seen] == (50, 100, 200)).all()
            assert (images.material[index][seen] == (90, 40)).all()
            assert not images.material[index][~seen].any()


def test_views_agree(published: Path) -> None:
    """Points of one view, lifted by its depth, lie on the surface that another sees."""
    ring = read_gobjaverse(published, "ball", orbits=("gobjaverse_ring1",))[0]
    assert ring.depth_m is not None
    for index in range(0, 24, 5):
        here, there = ring.orbit.camera(index), ring.orbit.camera((index + 2) % 24)
        v, u = np.nonzero(ring.depth_m[index])
        z = ring.depth_m[index][v, u]
        rays = np.stack(
            [(u + 0.5 - SIZE / 2) / here.focal_px, (v + 0.5 - SIZE / 2) / here.focal_px, np.ones(len(u))], -1
        )
        world = (rays * z[:, None]) @ here.T_world_camera[:3, :3].T + here.T_world_camera[:3, 3]
        seen = (world - there.T_world_camera[:3, 3]) @ there.T_world_camera[:3, :3]
        pixels = (seen[:, :2] / seen[:, 2:] * there.focal_px + SIZE / 2).astype(int)
        other = ring.depth_m[(index + 2) % 24][pixels[:, 1], pixels[:, 0]]
        visible = (other > 0) & (seen[:, 2] < other + 0.02)
        assert visible.mean() > 0.6
        # half a pixel is 0.012 m here, on a surface that falls off
        assert np.median(np.abs(seen[visible, 2] - other[visible])) < 0.01


def test_depth_as_distance(tmp_path: Path, published: Path) -> None:
    folder = write_gobjaverse(tmp_path, all_cameras(), distance=True)
    planar = read_gobjaverse(published, "ball", orbits=("gobjaverse_poles",))[0]
    converted = read_gobjaverse(folder, "ball", orbits=("gobjaverse_poles",), depth="distance")[0]
    assert planar.depth_m is not None
    assert converted.depth_m is not None
    np.testing.assert_allclose(converted.depth_m, planar.depth_m, atol=1e-6)  # float32


def test_written_as_orbit(published: Path, tmp_path: Path) -> None:
    """What is read is a valid orbit/1 of ours, top and bottom views included."""
    for images in read_gobjaverse(published, "ball"):
        path = write_orbit(tmp_path, images)
        np.testing.assert_array_equal(read_orbit(path).rgba, images.rgba)


def test_a_ring_that_climbs(tmp_path: Path) -> None:
    cameras = all_cameras()
    elevation = cameras.elevation_deg.copy()
    elevation[:25] = np.linspace(5, 30, 25)
    climbing = Orbit.around_origin("all", cameras.azimuth_deg, elevation, cameras.distance_m, FOV_DEG, SIZE, SIZE)
    ring = read_gobjaverse(write_gobjaverse(tmp_path, climbing), "ball", orbits=("gobjaverse_ring1",))[0]
    np.testing.assert_allclose(ring.orbit.elevation_deg, np.linspace(5, 30, 25)[:24], atol=1e-3)


def test_directions_round_trip() -> None:
    directions = np.random.default_rng(0).normal(size=(5, 7, 3))
    np.testing.assert_array_equal(directions_from_unity(directions_to_unity(directions)), directions)
    # Unity is left-handed: the map mirrors
    assert np.linalg.det(directions_to_unity(np.eye(3))) == -1
    poses = all_cameras().T_world_camera
    np.testing.assert_array_equal(from_gobjaverse(to_gobjaverse(poses)), poses)


def refusal(folder: Path, **arguments: Any) -> str:
    with pytest.raises(OrbitError) as caught:
        read_gobjaverse(folder, "ball", **arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "x") == (
        f"{tmp_path / 'x'}: expected an object of G-Objaverse (folders 00000 to 00039), found no folder there"
    )


def test_missing_view(copy: Path) -> None:
    (copy / "00003").rename(copy / "x")
    assert refusal(copy) == (
        f"{copy}: the folder of view 00003 is missing (1 of 38 are; 39 numbered folders found, expected 40); download the "
        "object again"
    )
    assert len(read_gobjaverse(copy, "ball", orbits=("gobjaverse_ring2",))) == 1


@pytest.mark.parametrize(
    ("ending", "problem"), [(".png", "the picture is missing"), (".json", "the camera is missing")]
)
def test_missing_file(copy: Path, ending: str, problem: str) -> None:
    path = copy / "00007" / f"00007{ending}"
    path.unlink()
    assert refusal(copy) == f"{path}: {problem}; download the object again"


def test_truncated_files(copy: Path) -> None:
    path = copy / "00007" / "00007_nd.exr"
    path.write_bytes(path.read_bytes()[:300])
    assert refusal(copy).startswith(f"{path}: the EXR cannot be read (")
    path.write_bytes((copy / "00006" / "00006_nd.exr").read_bytes()[:-9])  # OpenEXR drops its pixels and raises nothing
    assert refusal(copy) == f"{path}: the EXR cannot be read (it is cut off); download the object again"
    path.unlink()
    ring = read_gobjaverse(copy, "ball", orbits=("gobjaverse_ring1",))[0]
    assert ring.depth_m is None
    assert ring.normal is None
    assert ring.albedo is not None
    path = copy / "00007" / "00007.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert refusal(copy).startswith(f"{path}: the picture cannot be read (")
    place = whole.index(b"IDAT")
    path.write_bytes(whole[:place] + b"ID\xff\xff" + whole[place + 4 :])  # Pillow calls that a SyntaxError
    assert refusal(copy).startswith(f"{path}: the picture cannot be read (")


@pytest.fixture
def change(copy: Path) -> Callable[..., Path]:
    def edit(index: int, **values: Any) -> Path:
        path = copy / f"{index:05d}" / f"{index:05d}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return path

    return edit


def test_camera_that_looks_elsewhere(copy: Path, change: Callable[..., Path]) -> None:
    path = change(5, origin=[1.0, 1.0, 1.0])
    text = refusal(copy)
    assert text.startswith(
        f"{path}: expected a camera that looks at the origin along its z, found one at (1, 1, 1) that"
    )


def test_opengl_axes(copy: Path, change: Callable[..., Path]) -> None:
    """Cameras of another convention look away from the origin."""
    rows = all_cameras().T_world_camera[0]
    path = change(0, y=(-rows[:3, 1]).tolist(), z=(-rows[:3, 2]).tolist())
    assert refusal(copy).startswith(f"{path}: expected a camera that looks at the origin along its z")


def test_rolled_and_mirrored_cameras(copy: Path, change: Callable[..., Path]) -> None:
    rows = to_gobjaverse(all_cameras().T_world_camera[3]).tolist()
    path = change(3, x=rows[1], y=[-value for value in rows[0]])
    assert refusal(copy).startswith(f"{path}: expected an upright camera (its x level, its y downwards), found x ")
    change(3, x=[-value for value in rows[0]], y=rows[1])
    assert refusal(copy) == (
        f"{path}: its camera mirrors (determinant -1): convert it with engine.geometry.frames, do not flip one axis"
    )


def test_renumbered_views(copy: Path, change: Callable[..., Path]) -> None:
    path = change(24, **json.loads((copy / "00023" / "00023.json").read_text()))
    assert refusal(copy) == (
        f"{path}: expected the view that closes gobjaverse_ring1, at azimuth 90.00 degrees, found 75.00; the views are not "
        "numbered as in G-Objaverse"
    )


def test_broken_cameras(copy: Path, change: Callable[..., Path]) -> None:
    path = change(2, x=[1.0, 0.0])
    assert refusal(copy).startswith(f"{path}: expected a camera with x, y, z, origin, x_fov and y_fov, found none (")
    change(2, **json.loads((copy / "00001" / "00001.json").read_text()) | {"x_fov": 1.0})
    assert "expected square pixels, found x_fov 1 and" in refusal(copy)
    change(2, x_fov=1.0, y_fov=1.0)
    assert refusal(copy) == (
        f"{path}: expected the picture size and field of view of view 00000 (48 x 48, 39.600 degrees), found 48 x 48, "
        "57.296 degrees"
    )


def test_normals_of_another_world(copy: Path) -> None:
    for name in ("gobjaverse_ring1", "gobjaverse_poles", "gobjaverse_ring2"):
        text = refusal(copy, normals="world", orbits=(name,))
        assert text.startswith(f"{copy}: {name}: expected normals that face their cameras, found that ")
        assert text.endswith("% do; are they in another world than 'world', or inside out?")
