"""Drawing a mesh: where geometry says, antialiased where asked."""

import numpy as np

from engine.files import MeshArrays
from engine.geometry import RING24, project
from engine.meshing import draw_mesh, rasterize_mesh
from tests.engine.balls import RADIUS_M, ball_mesh


def test_depth_is_that_of_the_ball() -> None:
    orbit = RING24.orbit(20.0, 64, 64).subset([0, 5])
    buffers = rasterize_mesh(ball_mesh(), orbit)
    # the nearest point of the ball stands distance - radius in front; facets lie within 0.1 mm of it
    assert abs(buffers.depth_m[:, 30:34, 30:34].min() - (2.0 - RADIUS_M)) < 2e-3
    share = (buffers.face >= 0).mean((1, 2))
    # its outline is a circle whose rays touch the ball: tan = r / sqrt(d^2 - r^2)
    radius_px = orbit.focal_px * RADIUS_M / np.sqrt(4 - RADIUS_M**2)
    np.testing.assert_allclose(share, np.pi * radius_px**2 / 64**2, rtol=0.01)


def test_a_corner_is_drawn_where_geometry_projects_it() -> None:
    orbit = RING24.orbit(15.0, 200, 200).subset([3])
    corners = np.array([[0.3, 0.0, 0.1], [0.1, 0.2, -0.2], [-0.2, -0.1, 0.25]], np.float32)
    drawn = draw_mesh(MeshArrays(corners, np.array([[0, 1, 2]])), orbit)[0, ..., 3] > 0
    pixels, _ = project(orbit.camera(0), corners.astype(np.float64))
    v, u = np.nonzero(drawn)
    for pixel in pixels:
        # the pixel nearest to a sharp corner may lie a little inside of it
        assert np.hypot(u + 0.5 - pixel[0], v + 0.5 - pixel[1]).min() < 2


def test_supersampling_softens_edges_and_keeps_colours() -> None:
    ball = ball_mesh()
    red = MeshArrays(
        ball.vertices, ball.faces, vertex_colours=np.tile(np.uint8([200, 30, 10]), (len(ball.vertices), 1))
    )
    orbit = RING24.orbit(0.0, 40, 40).subset([0])
    hard, soft = draw_mesh(red, orbit)[0], draw_mesh(red, orbit, supersampling=4)[0]
    assert set(np.unique(hard[..., 3])) == {0, 255}
    edge = (soft[..., 3] > 0) & (soft[..., 3] < 255)
    assert edge.sum() > 20
    np.testing.assert_array_equal(
        soft[soft[..., 3] > 0][:, :3], np.broadcast_to([200, 30, 10], ((soft[..., 3] > 0).sum(), 3))
    )
    # coverage adds up to the circle's area: to a quarter of a pixel's worth of samples along the edge
    assert abs(soft[..., 3].sum() / 255 - (hard[..., 3] > 0).sum()) < 0.02 * (hard[..., 3] > 0).sum()
