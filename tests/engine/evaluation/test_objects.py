"""Splats and meshes against the true object: a ball that splats and views of it are known."""

from pathlib import Path

import pytest

from engine.errors import EvaluationError
from engine.evaluation.objects import find_truth, mesh_error, splats_error
from engine.files import OrbitImages, write_mesh
from engine.meshing import MeshSettings
from engine.splats import Gaussians
from engine.splats.fitting import FitSettings, fit
from tests.engine.balls import ball_mesh, ball_orbit


@pytest.fixture(scope="module")
def splats(ball: OrbitImages) -> Gaussians:
    return fit(ball, FitSettings(iterations=40, spacing_m=0.03))


def test_splats_are_judged_by_the_views_that_were_not_given(ball: OrbitImages, splats: Gaussians) -> None:
    error = splats_error(splats, ball)
    assert error.psnr_db is not None
    assert error.psnr_db > 20  # seen: 27 dB after 40 steps
    broken = ball.rgba.copy()
    broken[0] = 0
    assert splats_error(splats, OrbitImages("ball", ball.orbit, broken)) == error


@pytest.mark.slow
def test_a_balls_mesh_is_near_the_ball(tmp_path: Path) -> None:
    ball = ball_orbit(size=64, views=24)
    write_mesh(tmp_path / "ball.glb", ball_mesh())
    error = mesh_error(fit(ball, FitSettings(iterations=100)), ball, MeshSettings(resolution=48), tmp_path / "ball.glb")
    assert error["chamfer"] < 0.02  # a voxel of 1/48
    assert error["iou"] > 0.9


def test_objects_without_a_true_mesh_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.glb").touch()
    assert find_truth(tmp_path, ["a", "b"]) == {"a": tmp_path / "a.glb", "b": tmp_path / "b.glb"}
    with pytest.raises(
        EvaluationError, match=r"lacks the true mesh of 2 of 3 objects: c.glb, d.glb; put them there, or"
    ):
        find_truth(tmp_path, ["a", "c", "d"])
    with pytest.raises(EvaluationError, match="--truth must name a folder of true meshes"):
        find_truth(tmp_path / "a.glb", ["a"])
