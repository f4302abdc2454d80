"""The example object: made twice by the command, then read back with trimesh, which shares no code with it."""

import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trimesh

ROOT = Path(__file__).parents[2]
TOWER_AXIS_M = (1.35, 0.95)
"""(x, z) in glTF axes: the tower's place in the scene plus the offset of the whole object."""
TOWER_FOOT_M, BAND_M = 2.6, 5.55 / 7


@dataclass(frozen=True)
class Made:
    """What one run of the command left behind."""

    path: Path
    stdout: str
    folder: tuple[str, ...]


def run_example(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "render_farm.worker.example", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


def make(folder: Path) -> Made:
    path = folder / "lighthouse.glb"
    done = run_example("--out", str(path))
    assert done.returncode == 0, done.stderr[-2000:]
    return Made(path, done.stdout, tuple(sorted(p.name for p in folder.iterdir())))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("example"))


@pytest.fixture(scope="module")
def mesh(made: Made) -> trimesh.Trimesh:
    scene = trimesh.load_scene(made.path)
    assert len(scene.geometry) == 1
    return scene.to_geometry()


@pytest.mark.blender
@pytest.mark.slow
def test_the_path_alone_is_on_stdout_and_the_file_alone_in_the_folder(made: Made) -> None:
    assert made.stdout == f"{made.path}\n"
    assert made.folder == ("lighthouse.glb",)


@pytest.mark.blender
@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes(made: Made, tmp_path: Path) -> None:
    again = make(tmp_path)
    first, second = (hashlib.sha256(m.path.read_bytes()).hexdigest() for m in (made, again))
    assert first == second


@pytest.mark.blender
@pytest.mark.slow
def test_the_surface_is_one_closed_piece_of_the_promised_size(mesh: trimesh.Trimesh) -> None:
    closed = mesh.copy()
    closed.merge_vertices(merge_tex=True, merge_norm=True)
    assert closed.is_watertight
    assert closed.is_winding_consistent
    assert closed.body_count == 1
    assert closed.volume > 50.0  # cubic metres: faces look outwards, and the slab of sea alone holds about 30
    assert 10_000 <= len(closed.faces) <= 30_000


@pytest.mark.blender
@pytest.mark.slow
def test_it_is_twelve_metres_high_flat_below_and_off_its_origin(mesh: trimesh.Trimesh) -> None:
    low, high = mesh.bounds
    size = high - low
    assert size[1] == pytest.approx(12.0, abs=0.01)  # single precision and the collapse of edges under 1 mm
    assert 0.7 < max(size[0], size[2]) / size[1] < 0.9
    assert (np.abs((low + high) / 2) > 0.5).all()
    bottom = mesh.area_faces[(mesh.triangles[..., 1] < low[1] + 1e-3).all(axis=1)].sum()
    assert bottom > 50.0  # square metres, of a disc of about 60


@pytest.mark.blender
@pytest.mark.slow
def test_it_has_one_rough_image_material_and_uv_inside_the_image(mesh: trimesh.Trimesh) -> None:
    uv, material = mesh.visual.uv, mesh.visual.material
    assert uv.shape == (len(mesh.vertices), 2)
    assert uv.min() >= 0.0
    assert uv.max() <= 1.0
    assert min(material.baseColorTexture.size) >= 1024
    assert material.metallicFactor == 0.0
    assert material.roughnessFactor >= 0.8


@pytest.mark.blender
@pytest.mark.slow
@pytest.mark.parametrize(("band", "is_red"), [(0, True), (1, False), (2, True), (3, False), (4, True)])
def test_the_bands_of_the_tower_are_where_the_paint_puts_them(mesh: trimesh.Trimesh, band: int, is_red: bool) -> None:
    """The texture lands on the right place of the surface, rows the right way up."""
    points, faces = trimesh.sample.sample_surface(mesh, 200_000, seed=1)
    middle = TOWER_FOOT_M + (band + 0.5) * BAND_M
    distance = np.hypot(points[:, 0] - TOWER_AXIS_M[0], points[:, 2] - TOWER_AXIS_M[1])
    shaft = (np.abs(points[:, 1] - middle) < 0.3) & (distance < 1.55) & (np.abs(mesh.face_normals[faces, 1]) < 0.2)
    assert shaft.sum() > 100
    red, green, _ = np.median(colours_at(mesh, points[shaft], faces[shaft]), axis=0)  # windows are the smaller part
    assert (red - green > 80) == is_red


def colours_at(mesh: trimesh.Trimesh, points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the texture's colours (0 to 255) at points on faces."""
    weights = trimesh.triangles.points_to_barycentric(mesh.triangles[faces], points)
    uv = np.einsum("nk,nkd->nd", weights, mesh.visual.uv[mesh.faces[faces]])
    image = np.asarray(mesh.visual.material.baseColorTexture.convert("RGB"), dtype=np.float64)
    height, width, _ = image.shape
    rows = np.clip(((1 - uv[:, 1]) * height).astype(int), 0, height - 1)
    return image[rows, np.clip((uv[:, 0] * width).astype(int), 0, width - 1)]


def test_another_extension_is_refused_before_blender_starts(tmp_path: Path) -> None:
    done = run_example("--out", str(tmp_path / "lighthouse.obj"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "error: --out must end in .glb, got 'lighthouse.obj': name it lighthouse.glb"
    )
    assert list(tmp_path.iterdir()) == []
