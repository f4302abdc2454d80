"""Depth maps of solids that arithmetic knows become closed meshes of those solids."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from engine.files.types import MeshArrays
from engine.meshing import FROM_SPLATS, MeshingError, MeshSettings, clean, is_closed, mesh_from_depth
from engine.meshing.surface import component_of_faces

SETTINGS = MeshSettings(resolution=96, target_faces=4000, threads=2)
VOXEL_M = 1 / 96


@pytest.fixture(scope="module")
def meshes(scenes) -> dict[str, MeshArrays]:
    return {
        name: mesh_from_depth(s.orbit, s.depth_m, s.alpha, settings=SETTINGS)
        for name, s in scenes.items()
        if name != "lifted sphere"
    }


def as_trimesh(mesh: MeshArrays) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def samples(mesh: MeshArrays) -> np.ndarray:
    return np.asarray(trimesh.sample.sample_surface(as_trimesh(mesh), 20_000, seed=0)[0])


@pytest.mark.parametrize("name", ["sphere", "box", "tower", "torus", "sheet"])
def test_every_mesh_is_closed_light_and_in_one_part(meshes, name: str) -> None:
    mesh = meshes[name]
    assert is_closed(mesh.vertices, mesh.faces)
    assert len(mesh.faces) <= SETTINGS.target_faces
    assert component_of_faces(mesh.faces, len(mesh.vertices)).max() == 0


def test_the_seen_part_of_a_sphere_is_right_below_the_voxel(meshes) -> None:
    points = samples(meshes["sphere"])
    error = np.abs(np.linalg.norm(points, axis=1) - 0.5)
    # pixels are 15 mm, voxels 10 mm; all above is seen without grazing
    seen = points[:, 2] > -0.3
    assert error[seen].mean() < 0.25 * VOXEL_M
    assert np.percentile(error[seen], 99) < VOXEL_M
    # the hidden cap: no deeper than the sphere, no flatter than a lid on the seen rim. From 20 degrees above and 2 m
    # away a view sees down to acos(0.5 / 2) - 20 = 55.5 degrees below the equator: z = -0.41
    assert -0.5 <= points[:, 2].min() <= -0.41


def test_what_a_given_view_sees_through_is_empty(scenes) -> None:
    """Its outline is half as wide as the others say: so is the ball, although one view alone is not believed."""
    s = scenes["sphere"]
    alpha, depth = s.alpha.copy(), s.depth_m.copy()
    alpha[0, :, : alpha.shape[2] // 2] = 0
    depth[0, :, : alpha.shape[2] // 2] = 0
    forgiving = replace(SETTINGS, free_views=4, fill=0.0)
    left = s.orbit.T_world_camera[0, :3, 0]
    reach = {}
    for given in (None, 0):
        points = samples(mesh_from_depth(s.orbit, depth, alpha, given_view=given, settings=forgiving))
        reach[given] = float((points @ -left).max())
    assert reach[None] > 0.45
    assert reach[0] < 0.1


def test_a_box_gets_a_flat_bottom_where_its_sides_end(meshes) -> None:
    mesh = as_trimesh(meshes["box"])
    # corners and edges are rounded by about half a voxel: 3 percent of this box's volume a voxel of its surface
    assert mesh.volume == pytest.approx(1.0 * 0.6 * 0.5, rel=0.04)
    # a face may overhang its edge by the pixel (15 mm) in which it was last seen
    np.testing.assert_allclose(mesh.bounds, [[-0.5, -0.3, -0.25], [0.5, 0.3, 0.25]], atol=1.5 * VOXEL_M)


def test_a_roof_that_is_seen_at_a_grazing_angle_is_not_opened(meshes) -> None:
    mesh = as_trimesh(meshes["tower"])
    assert mesh.volume == pytest.approx(0.7 * 0.6 * 1.0, rel=0.04)  # as above; without its roof it would be a pit
    assert mesh.bounds[1, 2] == pytest.approx(0.5, abs=1.5 * VOXEL_M)


def test_a_torus_keeps_its_hole(meshes) -> None:
    mesh = as_trimesh(meshes["torus"])
    assert mesh.euler_number == 0
    p = samples(meshes["torus"])
    error = np.abs(np.hypot(np.hypot(p[:, 0], p[:, 2]) - 0.36, p[:, 1]) - 0.14)
    assert error.mean() < 0.5 * VOXEL_M


def test_a_sheet_thinner_than_a_voxel_survives_and_stays_thin(meshes) -> None:
    mesh = as_trimesh(meshes["sheet"])
    wide, thick, high = mesh.extents
    assert (wide, high) == (pytest.approx(0.8, abs=2.5 * VOXEL_M), pytest.approx(0.8, abs=2.5 * VOXEL_M))
    assert thick < 3 * VOXEL_M
    # both sides of a sheet without holes: twice its area, give or take its rim
    assert mesh.area == pytest.approx(2 * 0.8 * 0.8, rel=0.1)


@pytest.mark.slow
def test_an_object_off_centre_is_not_cut(scenes) -> None:
    s = scenes["lifted sphere"]  # reaches from -0.45 to 0.15: the mirror of its top would cut it in half
    mesh = mesh_from_depth(s.orbit, s.depth_m, s.alpha, settings=SETTINGS)
    assert mesh.vertices[:, 2].min() < -0.37  # its seen rim lies at -0.15 - 0.3 sin(58 deg) = -0.40
    assert np.abs(np.linalg.norm(samples(mesh) - [0, 0, -0.15], axis=1) - 0.3).mean() < 0.01


@pytest.mark.slow
def test_noise_in_depth_does_not_erode(scenes) -> None:
    s = scenes["sphere"]
    noise = np.random.default_rng(0).normal(0, 0.004, s.depth_m.shape).astype(np.float32)
    depth = np.where(s.depth_m > 0, s.depth_m + noise, 0).astype(np.float32)
    settings = replace(FROM_SPLATS, resolution=96, target_faces=4000, threads=2)
    points = samples(mesh_from_depth(s.orbit, depth, s.alpha, settings=settings))
    radius = np.linalg.norm(points[points[:, 2] > -0.3], axis=1)
    assert radius.mean() == pytest.approx(0.5, abs=0.5 * VOXEL_M)


def test_the_same_input_gives_the_same_bytes(scenes, meshes) -> None:
    s = scenes["box"]
    again = mesh_from_depth(s.orbit, s.depth_m, s.alpha, settings=SETTINGS)
    assert again.vertices.tobytes() == meshes["box"].vertices.tobytes()
    assert again.faces.tobytes() == meshes["box"].faces.tobytes()


def test_masks_of_bytes_and_progress(scenes) -> None:
    s = scenes["box"]
    heard: list[tuple[str, float]] = []
    coarse = replace(SETTINGS, resolution=48)
    mesh = mesh_from_depth(
        s.orbit, s.depth_m, np.round(s.alpha * 255).astype(np.uint8), settings=coarse,
        progress=lambda stage, share: heard.append((stage, share)),
    )  # fmt: skip
    assert is_closed(mesh.vertices, mesh.faces)
    assert [stage for stage, _ in heard] == ["views", "carve", "complete", "surface", "clean", "clean"]
    assert heard[-1][1] == 1.0


def test_masks_that_do_not_fit_the_depth_are_named(scenes) -> None:
    s = scenes["sheet"]
    with pytest.raises(MeshingError, match="pixels have both depth and alpha: do the masks fit the depth maps"):
        mesh_from_depth(s.orbit, s.depth_m, np.where(s.depth_m > 0, 0, 1).astype(np.float32), settings=SETTINGS)


def test_what_pymeshlab_says_reaches_the_caller() -> None:
    vertices, faces = np.zeros((3, 3)), np.array([[0, 1, 7]])
    with pytest.raises(MeshingError, match=r"cleaning the mesh failed in pymeshlab \(exit code -?\d+\): \S"):
        clean.clean_surface(vertices, faces, SETTINGS)
    assert "pymeshlab" not in sys.modules  # it stays in its own process
