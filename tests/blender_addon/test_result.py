"""Result folders: whole ones are read, broken ones are named with their remedy. No Blender."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from blender_addon.errors import FixItError
from blender_addon.result import read_result
from engine.geometry import Orbit

AGAIN = "Generate into this folder again: finished stages are not repeated."


@pytest.fixture
def folder(make_result: Callable[[Path], Path], tmp_path: Path) -> Path:
    """A result folder of this test's own."""
    return make_result(tmp_path / "boxes")


def edit(folder: Path, **changes: object) -> None:
    path = folder / "orbit.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_whole_folder(folder: Path, orbit: Orbit) -> None:
    result = read_result(folder)
    np.testing.assert_allclose(result.views.T_world_camera, orbit.T_world_camera, atol=1e-7)  # stored with 7 decimals
    np.testing.assert_array_equal(result.views.azimuth_deg, orbit.azimuth_deg)
    assert (result.views.focal_px, result.views.principal_px) == (orbit.focal_px, orbit.principal_px)
    assert [path.name for path in result.views.images] == [f"boxes.ring4.rgba_{i:02d}.webp" for i in range(4)]
    assert (result.splats, result.mesh) == (folder / "splats.ply", folder / "mesh.glb")
    assert (result.scale, result.centre, result.report["preset"]) == (0.25, (3.0, -2.0, 1.5), "tiny")
    assert result.notes == ()


def test_what_is_missing_is_said(folder: Path) -> None:
    for name in ("splats.ply", "mesh.glb", "report.json"):
        (folder / name).unlink()
    result = read_result(folder)
    assert (result.splats, result.mesh, result.report) == (None, None, {})
    assert result.notes == (
        "splats.ply is not in boxes: imported without it.",
        "mesh.glb is not in boxes: imported without it.",
        "report.json is not in boxes: preset and seed are unknown.",
    )


def remove_view(folder: Path) -> None:
    (folder / "boxes.ring4.rgba_02.webp").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "orbit.json").unlink(), f"boxes: expected orbit.json, found none. Choose a result folder, or: {AGAIN}"),
        (remove_view, f"boxes: expected 4 views, 1 missing: boxes.ring4.rgba_02.webp first. {AGAIN}"),
        (lambda f: edit(f, format="orbit/9"), "orbit.json: expected format orbit/1, found orbit/9. Update the add-on, or generate again."),
        (lambda f: edit(f, uid="../x"), f"orbit.json: expected a uid of letters, digits, '.', '_', '-', found '../x'. {AGAIN}"),
        (lambda f: edit(f, camera_axes="opengl"), f"orbit.json: expected camera_axes opencv, found opengl. {AGAIN}"),
        (lambda f: edit(f, azimuth_deg=[0.0]), f"orbit.json: expected n poses 4x4 and n azimuths, found (4, 4, 4) and (1,). {AGAIN}"),
        (lambda f: edit(f, T_world_camera=[np.diag([1.0, -1, 1, 1]).tolist()] * 4), f"orbit.json: T_world_camera[0] is not a rigid pose. {AGAIN}"),
        (lambda f: edit(f, focal_px=-1), f"orbit.json: expected a picture and a focal length, found 48 x 32, -1.0. {AGAIN}"),
        (lambda f: edit(f, normalisation={"scale": 0, "centre": [0, 0, 0]}), f"orbit.json: expected a finite normalisation, found scale 0.0, centre (0.0, 0.0, 0.0). {AGAIN}"),
    ],
)  # fmt: skip
def test_broken_orbits_are_named(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(FixItError) as caught:
        read_result(folder)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: b"not a mesh at all, just text", "mesh.glb: expected a binary glTF file, found none"),
        (lambda data: data[:-100], "mesh.glb: expected glTF 2 of"),
        (lambda data: data[:20] + b"!" + data[21:], "mesh.glb: its glTF description cannot be read"),
        (lambda data: data.replace(b'"meshes"', b'"mashes"'), "mesh.glb: expected a mesh, found none"),
    ],
)
def test_broken_meshes_never_reach_blenders_importer(folder: Path, spoil, problem: str) -> None:
    path = folder / "mesh.glb"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(FixItError) as caught:
        read_result(folder)
    assert str(caught.value).startswith(problem)
    assert str(caught.value).endswith("(--from meshing), or remove mesh.glb to import without it.")


def test_a_report_that_cannot_be_read_is_said(folder: Path) -> None:
    (folder / "report.json").write_text("{")
    assert read_result(folder).notes[0].startswith("report.json cannot be read (")
