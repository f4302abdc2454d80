"""Outlines alone: the hull of a ball that arithmetic knows, outlines that contradict the others, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from engine.files.types import MeshArrays
from engine.meshing import MeshingError, MeshSettings, is_closed, mesh_from_outlines
from engine.meshing.surface import component_of_faces

SETTINGS = MeshSettings(resolution=64, target_faces=4000, threads=2)
VOXEL_M = 1.3 / 64


def samples(mesh: MeshArrays) -> np.ndarray:
    made = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(made, 20_000, seed=0)[0])


def test_the_hull_of_a_ball_holds_it_closely(scenes) -> None:
    mesh = mesh_from_outlines(scenes["sphere"].orbit, scenes["sphere"].alpha, settings=SETTINGS)
    assert is_closed(mesh.vertices, mesh.faces)
    assert component_of_faces(mesh.faces, len(mesh.vertices)).max() == 0
    points = samples(mesh)
    radius = np.linalg.norm(points, axis=1)
    assert radius.min() > 0.5 - 0.5 * VOXEL_M
    # 16 views from 20 degrees above: at their height and opposite they see the outline itself, the poles are capped
    assert np.percentile(radius[np.abs(points[:, 2]) < 0.15], 99) < 0.5 + VOXEL_M
    assert radius.max() < 0.62


def test_some_views_are_forgiven_and_a_given_one_is_believed(scenes) -> None:
    """One outline is half as wide as the others say."""
    s = scenes["sphere"]
    alpha = s.alpha.copy()
    alpha[0, :, : alpha.shape[2] // 2] = 0
    left = -s.orbit.T_world_camera[0, :3, 0]

    def reach(views: int, given: int | None) -> float:
        settings = replace(SETTINGS, free_views=views)
        mesh = mesh_from_outlines(s.orbit, alpha, given_view=given, settings=settings)
        return float((samples(mesh) @ left).max())

    assert reach(1, None) < 0.05
    assert reach(2, None) > 0.45
    assert reach(2, 0) < 0.05
    assert reach(2, 1) > 0.45


def test_a_hull_runs_through_a_ring(scenes) -> None:
    """The torus' hole is seen through by those views that look along it, and so it is open."""
    s = scenes["torus"]
    points = samples(mesh_from_outlines(s.orbit, s.alpha, settings=SETTINGS))
    assert np.linalg.norm(points[:, [0, 2]], axis=1).min() > 0.1


def test_outlines_without_a_common_point_are_refused(scenes) -> None:
    s = scenes["sphere"]
    corner = np.zeros_like(s.alpha)
    corner[:, :8, :8] = 1
    with pytest.raises(MeshingError, match="the outlines have no point in common: do the poses fit the masks"):
        mesh_from_outlines(s.orbit, corner, settings=SETTINGS)
    with pytest.raises(MeshingError, match="alpha is 0 in every view"):
        mesh_from_outlines(s.orbit, np.zeros_like(corner), settings=SETTINGS)
    with pytest.raises(MeshingError, match=r"alpha must be \(16, 96, 96\)"):
        mesh_from_outlines(s.orbit, corner[:, :50], settings=SETTINGS)
