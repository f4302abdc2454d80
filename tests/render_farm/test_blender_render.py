"""Real renders against what geometry and optics say they must be."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from engine.files import read_orbit
from engine.geometry import project, rays_world
from render_farm import render as module
from render_farm.assets import load_asset
from render_farm.cameras import plan_orbits
from render_farm.convert import srgb_from_linear
from render_farm.errors import FarmError
from render_farm.gather import make_job
from render_farm.render import render_asset
from render_farm.spec import CameraSpec, Execution, RenderSpec

pytestmark = pytest.mark.blender

MARKERS = {  # colour -> place in asset units, +Z up: no symmetry; heights keep them apart in every view from near the side
    (1, 0, 0): (2.95, -2.2, 1.0),
    (0, 1, 0): (3.2, -2.0, 1.2),
    (0, 0, 1): (2.8, -1.9, 1.4),
    (1, 1, 0): (3.15, -2.25, 1.6),
    (0, 1, 1): (3.0, -2.1, 1.8),
}
MARKER_RADIUS = 0.03


def ball(part: Any, centre: Any, radius: float, subdivisions: int, material: dict[str, Any]) -> Any:
    mesh = trimesh.creation.icosphere(subdivisions)
    return part(mesh.vertices * radius + np.asarray(centre), mesh.faces, material, mesh.vertices)


def glow(colour: Any) -> dict[str, Any]:
    black = {"baseColorFactor": [0, 0, 0, 1]}
    specular = {"KHR_materials_specular": {"specularFactor": 0}}
    return {"pbrMetallicRoughness": black, "emissiveFactor": list(colour), "extensions": specular}


@pytest.mark.parametrize(("ring", "elevation_deg"), [("ring24", 5.0), ("ring16", -5.0)])
def test_markers_are_where_geometry_projects_them(
    render: Callable[..., Any], tmp_path: Path, make_glb: Any, make_part: Any, ring: str, elevation_deg: float
) -> None:
    balls = [ball(make_part, at, MARKER_RADIUS, 2, glow(colour)) for colour, at in MARKERS.items()]
    rendered = render(make_glb(tmp_path / "markers.glb", *balls), layout=ring, elevation_deg=elevation_deg, width=192,
                      height=192, samples=16).images  # fmt: skip
    places = np.array(list(MARKERS.values()))
    low, high = places.min(0) - MARKER_RADIUS, places.max(0) + MARKER_RADIUS
    scale, centre = 1 / (high - low).max(), (high + low) / 2
    assert rendered.normalisation.scale == pytest.approx(scale, rel=1e-5)  # float32 coordinates
    assert rendered.normalisation.centre == pytest.approx(tuple(centre), abs=1e-5)
    colours = np.array(list(MARKERS)) * 255.0
    errors = []
    for index, camera in enumerate(rendered.orbit.cameras):
        pixels, _ = project(camera, scale * (places - centre))
        rgba = rendered.rgba[index].astype(float)
        away = np.abs(rgba[..., None, :3] - colours).sum(-1)
        for marker, expected in enumerate(pixels):
            weight = np.where(away[..., marker] < 120, rgba[..., 3], 0.0)
            v, u = (np.array(np.indices(weight.shape)) * weight).sum((1, 2)) / weight.sum() + 0.5
            errors.append(np.hypot(u - expected[0], v - expected[1]))
    # half a pixel would be a convention error; noise of 16 samples and a ball's perspective leave about a tenth
    assert np.max(errors) < 0.5
    assert np.mean(errors) < 0.1


@pytest.fixture(scope="module")
def sphere(render: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, make_glb: Any, make_part: Any) -> Any:
    """A white ball of diameter 1 at the origin, 20480 triangles."""
    folder = tmp_path_factory.mktemp("sphere")
    part = ball(make_part, (0, 0, 0), 0.5, 5, {"pbrMetallicRoughness": {"metallicFactor": 0}})
    return render(make_glb(folder / "sphere.glb", part), width=128, height=128, samples=8).images


def sphere_hits(camera: Any) -> tuple[Any, Any, Any]:
    """Hit mask, planar depth and unit normal of the analytic sphere of radius 0.5, at pixel centres."""
    origin, directions = rays_world(camera)
    b = directions @ origin
    discriminant = b**2 - (origin @ origin - 0.25)
    hit = discriminant > 0
    distance = -b - np.sqrt(np.where(hit, discriminant, 0))
    points = origin + directions * distance[..., None]
    depth = (points - origin) @ camera.T_world_camera[:3, 2]
    return hit, depth, points / 0.5


def test_depth_of_a_sphere_is_planar(sphere: Any) -> None:
    for index in (0, 7, 19):
        hit, depth, _ = sphere_hits(sphere.orbit.camera(index))
        rendered = sphere.depth_m[index]
        both = hit & (rendered > 0)
        # facets lie up to 1e-4 inside the sphere, seen obliquely twice that; the outermost pixel, where a facet's edge decides, errs by up to 0.05
        assert np.abs(rendered - depth)[both].mean() < 1e-3
        assert np.median(np.abs(rendered - depth)[both]) < 2e-4
        # ray length instead of planar depth would be off by this much
        assert (np.linalg.norm(rays_world(sphere.orbit.camera(index))[0]) - 0.5) - depth[both].min() < 1e-3
        assert (hit != (rendered > 0)).sum() <= 0.01 * hit.sum()  # only on the outline


def test_nothing_is_zero(sphere: Any) -> None:
    empty = sphere.rgba[..., 3] == 0
    assert empty.any()
    assert sphere.depth_m[empty].max() == 0
    assert np.abs(sphere.normal[empty]).max() == 0
    assert sphere.albedo[empty].max() == 0


def test_normals_of_a_sphere(sphere: Any) -> None:
    for index in (0, 7, 19):
        hit, _, normal = sphere_hits(sphere.orbit.camera(index))
        inner = hit & (sphere.rgba[index, ..., 3] == 255)
        cosine = (sphere.normal[index] * normal).sum(-1)[inner]
        # 8 bits a component: 0.4 degrees; averaging over a pixel near the outline a little more
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean() < 0.7
        assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 8


def test_white_ball_in_a_white_sky(sphere: Any) -> None:
    # a convex white diffuse ball returns all light, and its specular layer keeps the energy
    inner = sphere.rgba[..., 3] == 255
    assert sphere.rgba[inner][:, :3].mean() > 254


LINEAR_GREY = 0.21404114  # 0.5 in sRGB: 127.5


@pytest.mark.parametrize(
    "material",
    [
        pytest.param(glow([LINEAR_GREY] * 3), id="emission"),
        pytest.param(
            {
                "pbrMetallicRoughness": {"baseColorFactor": [LINEAR_GREY] * 3 + [1], "metallicFactor": 0},
                "extensions": {"KHR_materials_specular": {"specularFactor": 0}},
            },
            id="diffuse",
        ),
        pytest.param(
            {"pbrMetallicRoughness": {"baseColorFactor": [LINEAR_GREY] * 3 + [1], "roughnessFactor": 0.2}}, id="metal"
        ),
    ],
)
def test_grey_card(render: Callable[..., Any], tmp_path: Path, make_glb: Any, make_part: Any, material: Any) -> None:
    corners = np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1.0]])
    card = make_part(corners, np.array([[0, 1, 2], [0, 2, 3]]), material)
    images = render(make_glb(tmp_path / "card.glb", card), samples=32, elevation_deg=5.0, width=48, height=48).images
    expected = 255 * srgb_from_linear(np.array(LINEAR_GREY))
    for index in (0, 12):  # its front and its back
        inner = images.rgba[index, 16:32, 16:32]
        assert (inner[..., 3] == 255).all()
        # 1/255: rounding, and the noise of 256 pixels of 32 samples
        assert np.abs(inner[..., :3].astype(float).mean((0, 1)) - expected).max() < (1.0 if "emissiveFactor" in material or
            "extensions" in material else 4.0)  # a rough metal keeps a little more or less energy  # fmt: skip
        if "emissiveFactor" not in material:
            assert np.abs(images.albedo[index, 16:32, 16:32].astype(float) - expected).max() <= 1.0


def test_metal_and_textures_have_their_base_colour(
    render: Callable[..., Any], tmp_path: Path, make_glb: Any, make_box: Any
) -> None:
    gold = make_box(size=(0.4, 0.4, 0.4), at=(-0.3, 0, 0), baseColorFactor=[1.0, 0.6, 0.1, 1], metallicFactor=1)
    black = make_box(size=(0.4, 0.4, 0.4), at=(0.3, 0, 0), baseColorFactor=[0, 0, 0, 1], metallicFactor=0)
    images = render(make_glb(tmp_path / "two.glb", gold, black), elevation_deg=10.0).images
    expected = np.round(255 * srgb_from_linear(np.array([1.0, 0.6, 0.1])))
    v, u = 48, 36
    assert np.abs(images.albedo[0, v, u] - expected).max() <= 1
    assert images.albedo[0, v, 96 - u].max() == 0  # the specular layer's 4 % are no albedo
    assert images.rgba[0, v, 96 - u, :3].max() > 0


def test_cut_outs_show_what_is_behind(
    render: Callable[..., Any], tmp_path: Path, make_glb: Any, make_part: Any
) -> None:
    def card(y: float, colour: list[float], mode: str) -> Any:
        corners = np.array([[-1, y, -1], [1, y, -1], [1, y, 1], [-1, y, 1.0]])
        return make_part(corners, np.array([[0, 1, 2], [0, 2, 3]]), {
            "alphaMode": mode, "pbrMetallicRoughness": {"baseColorFactor": colour, "metallicFactor": 0},
        })  # fmt: skip

    path = make_glb(tmp_path / "cards.glb", card(-0.5, [1, 0, 0, 0.0], "BLEND"), card(0.5, [0, 0, 1, 1], "OPAQUE"))
    images = render(path, elevation_deg=5.0).images
    # the invisible card at y = -0.5 is 1.75 m away (scaled by 1/2), the blue one behind it 2.25 m
    assert images.depth_m[0, 48, 48] == pytest.approx(2.25, abs=0.02)
    assert images.albedo[0, 48, 48].tolist() == [0, 0, 255]


def test_principal_point_and_pixels_that_are_not_square_pictures(
    tmp_path: Path, make_glb: Any, make_part: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Intrinsics beyond the rings': a wide picture and a principal point off its middle."""

    def shifted(seed: int, spec: RenderSpec) -> Any:
        return tuple(
            dataclasses.replace(item, orbit=dataclasses.replace(item.orbit, principal_px=(70.0, 40.0)))
            for item in plan_orbits(seed, spec)
        )

    monkeypatch.setattr(module, "plan_orbits", shifted)
    balls = [ball(make_part, at, MARKER_RADIUS, 2, glow(colour)) for colour, at in MARKERS.items()]
    path = make_glb(tmp_path / "markers.glb", *balls)
    spec = RenderSpec(width=160, height=96, samples=16, cameras=CameraSpec(elevation_deg=5.0))
    images = read_orbit(render_asset(path, tmp_path, spec).path)
    places = np.array(list(MARKERS.values()))
    middle = (places.max(0) + places.min(0)) / 2
    for index in (0, 5):
        alpha = images.rgba[index, ..., 3].astype(float)
        v, u = (np.array(np.indices(alpha.shape)) * alpha).sum((1, 2)) / alpha.sum() + 0.5
        pixels, depth = project(images.orbit.camera(index), images.normalisation.scale * (places - middle))
        expected = (pixels / depth[:, None] ** 2).sum(0) / (1 / depth**2).sum()  # areas go with 1 / depth^2
        assert np.hypot(u - expected[0], v - expected[1]) < 0.5


def test_same_seed_same_bytes(render: Callable[..., Any], box_glb: Path) -> None:
    first, second = render(box_glb), render(box_glb)
    assert first.images.orbit.T_world_camera.tobytes() == second.images.orbit.T_world_camera.tobytes()
    names = sorted(p.name for p in first.report.path.parent.iterdir())
    assert names == sorted(p.name for p in second.report.path.parent.iterdir())
    for name in names:
        one, two = (r.report.path.parent / name for r in (first, second))
        assert one.read_bytes() == two.read_bytes(), name
    other = render(box_glb, seed=99)
    assert (other.images.rgba != first.images.rgba).any()


def test_denoising_changes_colour_alone(render: Callable[..., Any], box_glb: Path) -> None:
    plain, denoised = render(box_glb).images, render(box_glb, denoise="fast").images
    assert (plain.depth_m == denoised.depth_m).all() or np.abs(plain.depth_m - denoised.depth_m).max() < 1e-3
    assert (plain.rgba[..., 3] == denoised.rgba[..., 3]).all()
    assert denoised.renderer["denoise"] == "fast"


def test_a_gpu_is_used_or_its_absence_is_an_error(box_glb: Path, tmp_path: Path) -> None:
    """Never a silent render on the CPU."""
    spec, execution = (
        RenderSpec(width=16, height=16, samples=1, cameras=CameraSpec(elevation_deg=10.0)),
        Execution(device="gpu"),
    )
    try:
        report = render_asset(box_glb, tmp_path / "out", spec, execution=execution)
    except FarmError as error:
        refusal = error
    else:
        assert read_orbit(report.path).renderer["device"] != "CPU"
        return
    assert refusal.reason == "no-gpu"
    assert str(refusal).startswith("box.glb: device gpu was asked for, but Blender ")
    assert not (tmp_path / "out").exists()


def test_job_knows_nothing_of_orbits(box_glb: Path, tmp_path: Path) -> None:
    """The child gets Blender's matrices: camera axes flipped, world as it is."""
    spec, asset = RenderSpec(cameras=CameraSpec(elevation_deg=0.0)), load_asset(box_glb)
    job = make_job("k", asset.path, asset.suffix, planned=plan_orbits(0, spec), seed=0, spec=spec, execution=Execution(),
                   folder=tmp_path)  # fmt: skip
    first = np.array(job.orbits[0].views[0].matrix_world)
    np.testing.assert_allclose(first[:3, 3], [0, -2, 0], atol=1e-12)  # azimuth 0 stands at -Y
    np.testing.assert_allclose(first[:3, 2], [0, -1, 0], atol=1e-12)  # and looks along its own -Z
    np.testing.assert_allclose(first[:3, 1], [0, 0, 1], atol=1e-12)
