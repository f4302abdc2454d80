"""Colours that are a function of place come back from the baked texture, in place and not mirrored."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from engine.files.types import MeshArrays
from engine.geometry import RING24
from engine.meshing import (
    MeshingError,
    MeshSettings,
    draw_mesh,
    rasterize_mesh,
    texture_from_views,
    view_agreement,
)
from engine.meshing.rasterize import sample_texture
from engine.meshing.texture import chart_texels

SETTINGS = MeshSettings(texture_size=256, threads=2)


def paint(points: np.ndarray) -> np.ndarray:
    """A smooth colour for every place: red grows with x, green with y, blue with z, so no mirroring goes unseen."""
    return np.clip(128 + 200 * points, 0, 255)


@pytest.fixture(scope="module")
def ball() -> MeshArrays:
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    return MeshArrays(np.asarray(mesh.vertices), np.asarray(mesh.faces).astype(np.int64))


@pytest.fixture(scope="module")
def views(scenes) -> np.ndarray:
    s = scenes["sphere"]
    rgb = np.where(s.alpha[..., None] > 0, paint(0.5 * s.points / np.linalg.norm(s.points, axis=-1, keepdims=True)), 0)
    return np.round(np.concatenate([rgb, 255 * s.alpha[..., None]], -1)).astype(np.uint8)


@pytest.fixture(scope="module")
def textured(scenes, ball, views) -> MeshArrays:
    return texture_from_views(ball, scenes["sphere"].orbit, views, settings=SETTINGS)


def test_the_z_buffer_agrees_with_the_analytic_sphere(scenes, ball) -> None:
    s = scenes["sphere"]
    buffers = rasterize_mesh(ball, s.orbit)
    both = (buffers.depth_m > 0) & (s.depth_m > 0) & (s.alpha == 1)
    assert both.sum() > 0.9 * (s.depth_m > 0).sum()
    # the icosphere lies within r (1 - cos(edge / 2)) = 0.3 mm of the sphere; oblique pixels see that elongated
    assert np.median(np.abs(buffers.depth_m - s.depth_m)[both]) < 1e-3
    corners = ball.vertices[ball.faces[buffers.face[both]]]
    weights = np.concatenate([1 - buffers.barycentric[both].sum(1, keepdims=True), buffers.barycentric[both]], 1)
    place = (corners * weights[..., None]).sum(1)
    assert np.median(np.linalg.norm(place - s.points[both], axis=1)) < 1e-3


def test_colours_come_back_where_they_were_seen(textured) -> None:
    uv = textured.uv.mean(1)  # the middle of every face
    middle = textured.vertices[textured.faces].mean(1)
    error = np.abs(sample_texture(textured.texture, uv) - paint(middle))
    seen = middle[:, 2] > -0.3
    # 15 mm pixels of a gradient of 0.2 a mm, sampled bilinearly: about 1; oblique and blended ones a little more
    assert error[seen].mean() < 2
    assert np.percentile(error[seen], 99) < 10
    # what no view saw continues its surroundings: darker blue than the middle, not black or grey
    assert error[~seen].mean() < 25


def test_a_given_view_paints_all_that_faces_it(scenes, ball, views) -> None:
    orbit = scenes["sphere"].orbit
    odd = views.copy()
    odd[0, ..., :3] = (255, 0, 255)
    towards = orbit.T_world_camera[0, :3, 3] / np.linalg.norm(orbit.T_world_camera[0, :3, 3])

    def purple(given: int | None) -> np.ndarray:
        """How far from the first camera's direction its colour reaches: share of the ball's points in bands of angle."""
        made = texture_from_views(ball, orbit, odd, given_view=given, settings=SETTINGS)
        texels = chart_texels(made, made.uv, SETTINGS.texture_size)
        found = made.texture[texels.row, texels.column]
        mine = np.abs(found.astype(int) - (255, 0, 255)).max(-1) < 40
        angle = np.degrees(np.arccos(np.clip(texels.point @ towards / 0.5, -1, 1)))
        return np.array([mine[(low <= angle) & (angle < low + 10)].mean() for low in (0, 30, 60)])

    alike, surer = purple(None), purple(0)
    assert alike[1] < 0.2
    assert surer[0] > 0.99
    assert surer[1] > 0.8
    assert surer[2] < 0.2


def test_left_is_not_right(textured) -> None:
    """The camera at -Y sees +X on its right; the drawn mesh must have more red there."""
    image = draw_mesh(textured, RING24.orbit(0.0, 64, 64).subset([0]))[0].astype(int)
    assert image[32, 44, 0] - image[32, 20, 0] > 60
    assert image[20, 32, 2] - image[44, 32, 2] > 60


def test_charts_do_not_overlap_and_hold_their_own_places(textured) -> None:
    texels = chart_texels(textured, textured.uv, 256)
    # a texel's place, found through the atlas, is on the sphere: overlaps and flips would tear it
    np.testing.assert_allclose(np.linalg.norm(texels.point, axis=1), 0.5, atol=1e-3)
    area = np.abs(np.cross(textured.uv[:, 1] - textured.uv[:, 0], textured.uv[:, 2] - textured.uv[:, 0])).sum() / 2
    assert area * 256**2 == pytest.approx(len(texels.row), rel=0.02)  # overlapping charts would cover fewer texels


def test_the_texture_has_no_bare_texel(textured) -> None:
    assert textured.texture.shape == (256, 256, 3)
    assert (textured.texture.max(-1) > 0).all()


def test_the_made_mesh_agrees_with_its_views(scenes, textured, views) -> None:
    agreement = view_agreement(textured, scenes["sphere"].orbit, views)
    assert agreement.silhouette_iou > 0.97  # half a pixel around a disc of 68 pixels' diameter is 0.97
    assert agreement.psnr_db > 28  # what is left is the antialiased rim


def test_a_mesh_agrees_fully_with_its_own_drawing(scenes, textured) -> None:
    orbit = scenes["sphere"].orbit
    agreement = view_agreement(textured, orbit, draw_mesh(textured, orbit))
    assert agreement.silhouette_iou == 1.0
    assert agreement.psnr_db > 70


def test_an_occluder_hides_what_is_behind_it() -> None:
    """A red wall before a white one: no red may land on the white wall, not even at the red one's edge."""
    front = trimesh.creation.box((0.4, 0.02, 0.4), transform=trimesh.transformations.translation_matrix((0, -0.3, 0)))
    back = trimesh.creation.box((0.9, 0.02, 0.9), transform=trimesh.transformations.translation_matrix((0, 0.3, 0)))
    both = trimesh.util.concatenate([front, back])
    red, white = np.array([200, 20, 20], np.uint8), np.array([240, 240, 240], np.uint8)
    colours = np.concatenate([np.tile(red, (len(front.vertices), 1)), np.tile(white, (len(back.vertices), 1))])
    mesh = MeshArrays(np.asarray(both.vertices), np.asarray(both.faces).astype(np.int64), vertex_colours=colours)
    orbit = RING24.orbit(10.0, 96, 96)
    textured = texture_from_views(mesh, orbit, draw_mesh(mesh, orbit), settings=SETTINGS)
    texels = chart_texels(textured, textured.uv, 256)
    on_back = texels.point[:, 1] > 0
    painted = textured.texture[texels.row[on_back], texels.column[on_back]].astype(int)
    assert (
        np.abs(painted - white).max(1) > 40
    ).mean() < 0.005  # texels at the very edge of both, seen by no other view
    assert np.abs(painted - white).mean() < 2


def test_the_same_views_give_the_same_bytes(scenes, ball, views, textured) -> None:
    again = texture_from_views(ball, scenes["sphere"].orbit, views, settings=SETTINGS)
    assert again.texture.tobytes() == textured.texture.tobytes()
    assert again.uv.tobytes() == textured.uv.tobytes()


def test_views_that_cannot_texture_are_named(scenes, ball, views) -> None:
    orbit = scenes["sphere"].orbit
    with pytest.raises(MeshingError, match=r"rgba must be \(16, 96, 96, 4\) .* got \(2, 96, 96, 4\)"):
        texture_from_views(ball, orbit, views[:2], settings=SETTINGS)
    with pytest.raises(MeshingError, match="no view sees the mesh"):
        texture_from_views(ball, orbit, np.zeros_like(views), settings=SETTINGS)
    with pytest.raises(MeshingError, match="cannot unwrap a mesh without faces"):
        texture_from_views(replace(ball, faces=ball.faces[:0]), orbit, views, settings=SETTINGS)
