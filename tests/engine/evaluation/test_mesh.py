"""The measure of mesh error: known distances, known volumes, and the same figures as the published definition."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from engine.evaluation.mesh import EvaluationError, measure_mesh, volume_iou
from engine.files import write_mesh
from engine.files.types import MeshArrays

ORACLE = Path(__file__).parents[4] / "shared" / "tools" / "mesh-error"


def arrays(mesh: trimesh.Trimesh) -> MeshArrays:
    return MeshArrays(np.asarray(mesh.vertices), np.asarray(mesh.faces).astype(np.int64))


def ball(radius: float) -> MeshArrays:
    return arrays(trimesh.creation.icosphere(subdivisions=4, radius=radius))


def test_two_concentric_balls_are_as_far_apart_as_their_radii() -> None:
    error = measure_mesh(ball(7.0), ball(0.48), samples=5000, grid=48)  # the truth is normalised to radius 0.5
    # distances go to samples of the surface, a millimetre and less apart sideways: sqrt(0.02^2 + 0.001^2)
    assert error.chamfer == pytest.approx(0.02, abs=2e-4)
    assert error.truth_to_made == pytest.approx(error.made_to_truth, abs=2e-4)
    assert error.fscore == 0.0
    assert error.iou == pytest.approx(0.96**3, abs=0.01)  # 48 points across


def test_equal_meshes_measure_the_sampling_floor() -> None:
    error = measure_mesh(ball(0.5), ball(0.5), samples=5000, grid=24)
    assert error.chamfer < 0.001
    assert error.fscore == 1.0
    assert error.iou == 1.0


def test_hidden_inner_faces_do_not_count() -> None:
    nested = arrays(trimesh.util.concatenate([trimesh.creation.icosphere(4, 0.5), trimesh.creation.icosphere(4, 0.2)]))
    assert measure_mesh(nested, ball(0.5), samples=5000, grid=16).chamfer < 0.001


def test_an_open_mesh_has_no_volume() -> None:
    closed = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    opened = trimesh.Trimesh(closed.vertices, closed.faces[1:], process=False)
    assert volume_iou(closed, closed, 12) == 1.0
    assert volume_iou(closed, opened, 12) is None
    assert volume_iou(opened, closed, 12) is None


def test_what_cannot_be_measured_is_named() -> None:
    closed = ball(0.5)
    with pytest.raises(EvaluationError, match="the made mesh has no faces: nothing to measure"):
        measure_mesh(closed, replace(closed, faces=closed.faces[:0]))
    broken = replace(closed, vertices=np.where(closed.vertices > 0.49, np.nan, closed.vertices))
    with pytest.raises(EvaluationError, match="the truth holds vertices that are not finite"):
        measure_mesh(broken, closed)


@pytest.mark.skipif(not ORACLE.exists(), reason=f"{ORACLE} is not here: the project's shared tools")
@pytest.mark.slow
def test_the_projects_own_script_measures_the_same(tmp_path: Path) -> None:
    truth = arrays(trimesh.creation.torus(0.35, 0.15, 96, 48))
    rough = np.random.default_rng(0).normal(0, 0.004, truth.vertices.shape)
    made = replace(truth, vertices=(truth.vertices + rough).astype(np.float32).astype(np.float64))
    write_mesh(tmp_path / "truth.glb", truth)
    write_mesh(tmp_path / "made.glb", made)
    command = [sys.executable, str(ORACLE), "truth.glb", "made.glb", "--json", "--samples", "5000", "--grid", "40"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout)
    ours = measure_mesh(tmp_path / "truth.glb", tmp_path / "made.glb", samples=5000, grid=40)
    # samples of 5000 with a spread of 0.003: 0.00004 of standard error
    for name in ("chamfer", "truth_to_made", "made_to_truth"):
        assert getattr(ours, name) == pytest.approx(theirs[name], abs=2e-4)
    assert ours.fscore == pytest.approx(theirs["fscore"], abs=0.01)
    assert ours.iou == pytest.approx(theirs["iou"], abs=0.01)
