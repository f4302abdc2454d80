"""Every format, every hazard: the same object looks the same; what cannot be rendered says why, in one line."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from render_farm.errors import FarmError
from render_farm.render import render_asset
from render_farm.spec import CameraSpec, RenderSpec

pytestmark = pytest.mark.blender

SMALL = {"width": 96, "height": 96, "samples": 4, "layout": "ring24", "elevation_deg": 20.0, "seed": 1}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, run_program: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("formats")
    run_program("export_formats.py", str(folder))
    return folder


@pytest.fixture(scope="module")
def reference(exported: Path, render: Callable[..., Any]) -> Any:
    return render(exported / "object.glb", **SMALL).images


@pytest.mark.parametrize(
    "suffix", [".gltf", ".obj", ".fbx", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz", ".dae", ".abc", ".blend"]
)
def test_format_agrees_with_glb(exported: Path, reference: Any, render: Callable[..., Any], suffix: str) -> None:
    path = exported / f"object{suffix}"
    if not path.exists():
        pytest.skip(f"this Blender exports no {suffix}")
    images = render(path, **SMALL).images
    mask, expected = images.rgba[..., 3] > 127, reference.rgba[..., 3] > 127
    overlap = (mask & expected).sum((1, 2)) / (mask | expected).sum((1, 2))
    assert overlap.min() > 0.98  # a wrong axis or unit gives less than 0.8 on this object in some view
    both = (images.depth_m > 0) & (reference.depth_m > 0)
    # formats round coordinates to about six digits; steep faces multiply that
    assert np.abs(images.depth_m - reference.depth_m)[both].mean() < 1e-3
    assert images.normalisation.scale == pytest.approx(reference.normalisation.scale, rel=1e-4)
    assert images.normalisation.centre == pytest.approx(reference.normalisation.centre, abs=1e-3)
    assert images.renderer["triangles"] == 36
    assert not [w for w in images.renderer["warnings"] if "missing" in w]
    if suffix not in {".ply", ".stl", ".abc"}:  # which carry no materials
        # base colours through another format: 8-bit textures, six digits
        assert np.abs(images.albedo[mask & expected].astype(int) - reference.albedo[mask & expected]).mean() < 1.5


def test_reference_itself_is_upright_and_not_mirrored(reference: Any) -> None:
    """The red tower stands at +X +Y, the green block at -X in front (-Y); azimuth 0 looks from -Y."""
    front = reference.rgba[0].astype(int)
    red = (front[..., 0] > 150) & (front[..., 1] < 100) & (front[..., 3] > 127)
    green = (front[..., 1] > 120) & (front[..., 0] < 110) & (front[..., 3] > 127)
    red_v, red_u = (axis.mean() for axis in np.nonzero(red))
    green_v, green_u = (axis.mean() for axis in np.nonzero(green))
    assert red_u > 48 > green_u
    assert red_v < 48 < green_v


def test_ply_shows_its_vertex_colours(exported: Path, render: Callable[..., Any]) -> None:
    images = render(exported / "object.ply", **SMALL).images
    tower = images.albedo[0][(images.albedo[0, ..., 0] > 150) & (images.albedo[0, ..., 1] < 90)]
    assert len(tower) > 50


@pytest.mark.parametrize("suffix", [".gltf", ".obj", ".usda", ".dae", ".blend"])
def test_missing_texture_is_neutral_and_reported(
    tmp_path: Path, run_program: Callable[..., None], render: Callable[..., Any], suffix: str
) -> None:
    run_program("export_formats.py", str(tmp_path))
    for picture in tmp_path.rglob("*.png"):
        picture.unlink()
    images = render(tmp_path / f"object{suffix}", **SMALL).images
    # Blender's USD importer drops the file's name
    name = "a texture of 'quadrants'" if suffix == ".usda" else "texture 'quadrants.png'"
    assert f"{name} is missing: rendered with a neutral colour" in images.renderer["warnings"]
    top = images.albedo[0][(images.albedo[0].max(-1) > 0) & (np.ptp(images.albedo[0].astype(int), axis=-1) < 3)]
    assert len(top) > 300
    # linear 0.8 is 231; Collada's importer leaves white
    assert (np.median(top) == 231) or suffix == ".dae"
    pink = (images.rgba[..., 0] > 200) & (images.rgba[..., 1] < 60) & (images.rgba[..., 2] > 200)
    assert not pink.any()


def test_missing_material_library(tmp_path: Path, exported: Path, render: Callable[..., Any]) -> None:
    lonely = tmp_path / "object.obj"
    lonely.write_bytes((exported / "object.obj").read_bytes())
    warnings = render(lonely, **SMALL).images.renderer["warnings"]
    assert "material library 'object.mtl' is missing: rendered with a neutral colour" in warnings


# ------------------------------------------------------------------------------------------------ .blend
@pytest.fixture(scope="module")
def hazards(tmp_path_factory: pytest.TempPathFactory, run_program: Callable[..., None]) -> Path:
    folder = tmp_path_factory.mktemp("hazards")
    run_program("export_hazards.py", str(folder))
    return folder


def test_nothing_in_a_blend_is_executed(hazards: Path, render: Callable[..., Any], run_program: Any) -> None:
    render(hazards / "hostile.blend")
    assert not (hazards / "executed").exists()
    run_program("open_with_scripts.py", str(hazards / "hostile.blend"))  # the file does bite
    assert set((hazards / "executed").read_text().split()) == {"text", "driver"}


def test_blend_scene(hazards: Path, render: Callable[..., Any]) -> None:
    images = render(hazards / "scene.blend", width=128, height=128).images
    assert images.normalisation.centre == pytest.approx((5, 0, 0), abs=1e-5)
    assert images.normalisation.scale == pytest.approx(0.5, abs=1e-6)
    assert images.renderer["triangles"] == 36
    # neither its lamp, nor its exposure, nor its border: a default 0.8 grey box in a white sky
    inside = images.rgba[0, 60:70, 50:80]
    assert (inside[..., 3] == 255).all()
    assert 200 < inside[..., :3].mean() < 245


def test_pose_of_a_frame(hazards: Path, render: Callable[..., Any]) -> None:
    images = render(hazards / "posed.blend", frame=11).images
    assert images.normalisation.centre == pytest.approx((4, 0, 0), abs=1e-5)
    assert images.normalisation.scale == pytest.approx(1.0, abs=1e-6)
    assert images.renderer["triangles"] == 12  # the bone's shape is not an object


# ------------------------------------------------------------------------------------------------ bad models
TRIANGLE = "v 0 0 0\nv 1 0 0\nv 0 1 0\n"
BAD_MODELS = {
    "empty mesh": (
        "a.obj", "o nothing\n",
        "a.obj: it holds no triangles: expected a surface, found 0 visible objects without faces; is everything hidden, or "
        "is it a point cloud? [no-triangles]",
    ),
    "points": (
        "a.obj", TRIANGLE,
        "a.obj: it holds no triangles: expected a surface, found 1 visible objects without faces; is everything hidden, or "
        "is it a point cloud? [no-triangles]",
    ),
    "no size": (
        "a.obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n",
        "a.obj: its bounding box has no usable size: expected a longest side between 1e-09 and 1e+12, found 0; scale it "
        "[zero-size]",
    ),
    "not a number": (
        "a.obj", TRIANGLE.replace("0 1 0", "0 nan 0") + "f 1 2 3\n",
        "a.obj: mesh 'a' has vertices that are not finite numbers; repair it [not-finite]",
    ),
    "infinite": (
        "a.obj", TRIANGLE.replace("0 1 0", "0 inf 0") + "f 1 2 3\n",
        "a.obj: mesh 'a' has vertices that are not finite numbers; repair it [not-finite]",
    ),
    "nonsense": (
        "a.ply", "ply\nformat ascii 1.0\nelement vertex 3\nnonsense\nend_header\n1 2 3\n",
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_MODELS))
def test_bad_model(case: str, tmp_path: Path, render: Callable[..., Any]) -> None:
    name, text, message = BAD_MODELS[case]
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(FarmError) as caught:
        render(path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    if message is not None:
        assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_flat_models_are_fine(tmp_path: Path, render: Callable[..., Any]) -> None:
    path = tmp_path / "flat.obj"
    path.write_text("v -1 0 0\nv 1 0 0\nv 0 2 0\nf 1 2 3\n")  # OBJ is Y up: an upright triangle facing -Y
    images = render(path).images
    assert images.normalisation.centre == pytest.approx((0, 0, 1), abs=1e-6)
    assert images.rgba[0, 48, 48, 3] == 255


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_extreme_units(tmp_path: Path, render: Callable[..., Any], make_glb: Any, make_box: Any, scale: float) -> None:
    path = make_glb(
        tmp_path / "box.glb", make_box(size=(scale, scale / 2, scale / 4), baseColorFactor=[0.5, 0.5, 0.5, 1])
    )
    images = render(path).images
    assert images.normalisation.scale == pytest.approx(1 / scale, rel=1e-5)
    assert images.depth_m[0, 48, 48] == pytest.approx(2 - 0.25 / np.cos(np.radians(20)), abs=0.15)
    assert images.rgba[0, 48, 48, 3] == 255


def test_disk_full(tmp_path: Path, box_glb: Path) -> None:
    """A file system of one megabyte, where root may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs root and the right to mount a tmpfs")
    try:
        with pytest.raises(FarmError) as caught:
            render_asset(
                box_glb,
                small / "out",
                RenderSpec(width=512, height=512, samples=1, cameras=CameraSpec(elevation_deg=20.0)),
            )
        text = str(caught.value)
        assert text.startswith(f"box.glb: disk full: 0 bytes are free in {small}")
        assert text.endswith("; make room, raise the limit or choose another folder [disk-full]")
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
