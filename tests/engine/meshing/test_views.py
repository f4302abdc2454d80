"""Depth maps become planes and silhouettes below the pixel; what cannot become a mesh is named."""

import numpy as np
import pytest

from engine.geometry import RING24, rays_world
from engine.meshing.views import MeshingError, check_inputs, silhouette_distance_px, view_fields


def test_the_silhouette_of_a_soft_edge_is_found_below_the_pixel() -> None:
    edge = 10.3  # everything left of u = 10.3 is covered, the pixel that it cuts by three tenths
    alpha = np.clip(edge - np.arange(24), 0, 1)[None].repeat(24, 0).astype(np.float32)
    distance = silhouette_distance_px(alpha, 0.5)
    expected = np.arange(24) + 0.5 - edge
    # a quarter-pixel grid, and bilinear alpha is not the coverage itself
    np.testing.assert_allclose(distance[12, 4:18], expected[4:18], atol=0.2)


def test_full_and_empty_masks_have_no_silhouette() -> None:
    assert (silhouette_distance_px(np.ones((8, 8), np.float32), 0.5) < -100).all()
    assert (silhouette_distance_px(np.zeros((8, 8), np.float32), 0.5) > 100).all()


def plane_depth(normal: np.ndarray, offset: float, index: int) -> np.ndarray:
    camera = RING24.orbit(20.0, 64, 64).camera(index)
    centre, rays = rays_world(camera)
    return ((-offset - centre @ normal) / (rays @ normal) * (rays @ camera.T_world_camera[:3, 2])).astype(np.float32)


def test_a_tilted_plane_is_recovered_exactly() -> None:
    normal = np.array([0.5, -0.7, 0.5099])
    normal /= np.linalg.norm(normal)
    orbit = RING24.orbit(20.0, 64, 64).subset([0, 1, 2])
    depth = np.stack([plane_depth(normal, 0.05, k) for k in range(3)])
    fields = view_fields(orbit, depth, np.ones_like(depth), 0.5, 1)
    inner = fields.planes[:, 2:-2, 2:-2]
    # depth is stored as float32 of about 2 m: 1e-7 of it, times f = 89 px for a slope
    np.testing.assert_allclose(inner[..., :3], np.broadcast_to(normal, inner[..., :3].shape), atol=2e-4)
    np.testing.assert_allclose(inner[..., 3], 0.05, atol=5e-4)


def test_a_step_in_depth_is_not_bridged() -> None:
    orbit = RING24.orbit(20.0, 32, 32).subset([0, 1, 2])
    depth = np.full((3, 32, 32), 2.0, np.float32)
    depth[:, :, 16:] = 2.4
    fields = view_fields(orbit, depth, np.ones_like(depth), 0.5, 1)
    np.testing.assert_allclose(fields.depth_m, depth, atol=1e-5)  # no pixel lands in between
    toward_camera = np.einsum("nhwi,ni->nhw", fields.planes[..., :3], -orbit.T_world_camera[:, :3, 2])
    assert toward_camera.min() > 0.999  # both sides of the step face the camera


def test_a_wire_of_one_pixel_has_a_depth_but_no_plane() -> None:
    orbit = RING24.orbit(20.0, 32, 32).subset([0, 1, 2])
    depth = np.full((3, 32, 32), 2.4, np.float32)
    depth[:, :, 16] = 2.0
    fields = view_fields(orbit, depth, np.ones_like(depth), 0.5, 1)
    assert (fields.cosine[:, 4:-4, 16] > 0).all()
    assert (fields.cosine[:, 4:-4, 16] < 0.05).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nan", "depth_m of view 1 holds values that are not finite: use 0 where nothing is"),
        ("no alpha", "alpha is 0 in every view: there is no object in these images"),
        ("no depth", "depth_m is 0 in every view: render the orbit with depth, or take depth from the splats"),
        ("one view", "a mesh needs at least 3 views from different sides, got 1: render the orbit"),
        ("shape", "alpha must be (3, 16, 16) (views, height, width) like its orbit, got (3, 8, 16)"),
    ],
)
def test_what_cannot_become_a_mesh_says_so_in_one_line(change: str, message: str) -> None:
    orbit = RING24.orbit(20.0, 16, 16).subset([0, 8, 16])
    depth, alpha = np.full((3, 16, 16), 2.0, np.float32), np.ones((3, 16, 16), np.float32)
    if change == "nan":
        depth[1, 3, 3] = np.nan
    elif change == "no alpha":
        alpha[:] = 0
    elif change == "no depth":
        depth[:] = 0
    elif change == "one view":
        orbit, depth, alpha = orbit.subset([0]), depth[:1], alpha[:1]
    else:
        alpha = alpha[:, :8]
    with pytest.raises(MeshingError) as caught:
        check_inputs(orbit, depth, alpha)
    assert str(caught.value) == message
