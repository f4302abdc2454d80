"""Numbers that geometry and materials fix beforehand, pixel by pixel, in the pictures as they are stored."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from render_farm.cameras import plan_orbits
from render_farm.convert import srgb_from_linear
from render_farm.spec import CameraSpec, LightSpec, RenderSpec
from tests.render_farm.worker.quad import png, textured_glb

pytestmark = pytest.mark.blender

PASSES = ("depth", "normal", "camera_normal", "albedo", "material")
LEVEL = {"layout": "ring24", "views": 4, "elevation_deg": 0.0, "distance_m": 2.6}
GREY, ROUGHNESS, METALLIC = 0.35, 0.4, 0.0
NO_SHINE = {"KHR_materials_specular": {"specularFactor": 0}}


@pytest.fixture(scope="module")
def cube(render: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, make_glb: Any, make_box: Any) -> Any:
    """A box of 1 x 0.6 x 0.8 from its four sides."""
    part = make_box(
        size=(1, 0.6, 0.8), baseColorFactor=[GREY] * 3 + [1], roughnessFactor=ROUGHNESS, metallicFactor=METALLIC
    )
    part.material["extensions"] = NO_SHINE
    path = make_glb(tmp_path_factory.mktemp("cube") / "cube.glb", part)
    return render(path, **LEVEL, passes=PASSES, width=128, height=128, samples=32).images


def test_depth_of_a_box_is_that_of_its_faces(cube: Any) -> None:
    for view, half in enumerate((0.3, 0.5, 0.3, 0.5)):
        inner = cube.rgba[view, ..., 3] == 255
        assert inner.sum() > 1000
        # a face is a plane of constant z; sides cannot be seen. Millimetres of a metre, as depth is stored
        np.testing.assert_allclose(cube.depth_m[view][inner], 2.6 - half, atol=1e-3)


def test_normals_of_a_box(cube: Any) -> None:
    faces = np.array([[0, -1, 0], [1, 0, 0], [0, 1, 0], [-1, 0, 0]])
    for view, expected in enumerate(faces):
        there = np.abs(cube.normal[view]).max(-1) > 0
        # stored in 8 bits a component; also where the edge covers part of a pixel
        np.testing.assert_allclose(cube.normal[view][there], np.broadcast_to(expected, (there.sum(), 3)), atol=0.01)
        np.testing.assert_allclose(
            cube.camera_normal[view][there], np.broadcast_to([0, 0, -1], (there.sum(), 3)), atol=0.01
        )
        assert (there | (cube.rgba[view, ..., 3] < 255)).all()


def test_every_normal_is_of_unit_length(
    render: Callable[..., Any], tmp_path: Path, make_glb: Any, make_part: Any
) -> None:
    mesh = trimesh.creation.torus(0.35, 0.15)
    path = make_glb(tmp_path / "torus.glb", make_part(mesh.vertices, mesh.faces, {}, mesh.vertex_normals))
    images = render(path, passes=PASSES, samples=8).images
    for normal in (images.normal, images.camera_normal):
        length = np.linalg.norm(normal.astype(np.float64), axis=-1)
        assert (np.abs(length[length > 0] - 1) < 0.01).all()  # 8 bits a component
    turned = np.einsum("nhwc,ncd->nhwd", images.normal.astype(np.float64), images.orbit.T_world_camera[:, :3, :3])
    both = (np.abs(images.normal).max(-1) > 0) & (np.abs(images.camera_normal).max(-1) > 0)
    assert np.abs(turned - images.camera_normal)[both].max() < 0.02


def test_edges_have_the_colour_of_what_they_cover(cube: Any) -> None:
    """Straight alpha: over white there is no dark fringe. A convex diffuse box in a white sky has one colour."""
    expected = 255 * srgb_from_linear(np.array(GREY))
    edge = (cube.rgba[..., 3] > 0) & (cube.rgba[..., 3] < 255)
    assert edge.sum() > 200
    assert np.abs(cube.rgba[edge][:, :3] - expected).max() <= 1.5  # rounding
    there = cube.rgba[..., 3] > 0
    assert np.abs(cube.albedo[there] - expected).max() <= 1


def test_roughness_and_metalness_as_stored(cube: Any) -> None:
    there = cube.rgba[..., 3] > 0
    np.testing.assert_array_equal(
        cube.material[there], np.broadcast_to(np.round([255 * ROUGHNESS, 0]), (there.sum(), 2))
    )


@pytest.mark.parametrize("glowing", [False, True])
def test_albedo_is_the_texture_to_the_byte(render: Callable[..., Any], tmp_path: Path, glowing: bool) -> None:
    colour = (201, 64, 17)
    glow = {"emissiveTexture": {"index": 0}, "emissiveFactor": [1, 1, 1]} if glowing else {}
    path = textured_glb(tmp_path / "quad.glb", png(tmp_path / "quad.png", colour), **glow)
    images = render(path, **LEVEL).images
    inner = images.rgba[0, ..., 3] == 255
    assert inner.sum() > 1000
    assert np.abs(images.albedo[0][inner].astype(int) - colour).max() <= 1
    brighter = images.rgba[0][inner][:, :3].astype(int).mean(0) > np.array(colour) + 20
    assert brighter[1:].all() == glowing


def test_drawn_light_is_recorded_and_comes_back(render: Callable[..., Any], box_glb: Path) -> None:
    light = LightSpec("hdri")
    first, second = (render(box_glb, **LEVEL, light=light, seed=5).images for _ in range(2))
    (planned,) = plan_orbits(5, RenderSpec(cameras=CameraSpec(**LEVEL), light=light, seed=5))
    assert first.renderer["light"] == planned.light
    assert planned.light["kind"] == "hdri"
    np.testing.assert_array_equal(first.rgba, second.rgba)
    assert (render(box_glb, **LEVEL, light=light, seed=6).images.rgba != first.rgba).any()
