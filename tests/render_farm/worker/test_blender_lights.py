"""Light comes from where it is said to. A white ball tells: its brightness, weighted by normals, points there."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import trimesh

pytestmark = pytest.mark.blender

AROUND = (0.0, 90.0, 180.0, 270.0)
"""Azimuths of cameras that together see the ball evenly."""


@pytest.fixture(scope="module")
def ball(tmp_path_factory: pytest.TempPathFactory, make_glb: Any, make_part: Any) -> Path:
    mesh = trimesh.creation.icosphere(4)
    white = {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}
    part = make_part(mesh.vertices, mesh.faces, white, mesh.vertices)
    path: Path = make_glb(tmp_path_factory.mktemp("ball") / "ball.glb", part)
    return path


def area(*lamps: dict[str, float], sky: float = 0.02, strength: float = 1.0) -> dict[str, Any]:
    made = [
        {"azimuth_deg": 0.0, "elevation_deg": 0.0, "distance_m": 3.0, "size_m": 0.5, "power_w": 200.0,
         "temperature_k": 6500.0} | lamp
        for lamp in lamps
    ]  # fmt: skip
    return {"kind": "area", "strength": strength, "sky": sky, "lamps": made}


def hdri(name: str, sha256: str = "", rotation_deg: float = 0.0) -> dict[str, Any]:
    return {"kind": "hdri", "strength": 1.0, "name": name, "sha256": sha256, "rotation_deg": rotation_deg}


def pixels(outcome: Any) -> tuple[Any, Any]:
    """Linear colours [n, 3] and normals [n, 3] of all pixels that are the ball alone."""
    colours, normals = [], []
    for view in outcome.channels():
        inner = view["Combined.A"] > 0.999
        colours.append(np.stack([view[f"Combined.{c}"][inner] for c in "RGB"], -1))
        normals.append(np.stack([view[f"Normal.{c}"][inner] for c in "XYZ"], -1))
    return np.concatenate(colours), np.concatenate(normals)


def brightest(outcome: Any) -> tuple[float, float]:
    """Azimuth and elevation in degrees of the light as a whole."""
    colours, normals = pixels(outcome)
    x, y, z = (normals * colours.sum(-1, keepdims=True)).sum(0)
    return float(np.degrees(np.arctan2(x, -y))) % 360, float(np.degrees(np.arctan2(z, np.hypot(x, y))))


def apart(first: float, second: float) -> float:
    return abs((first - second + 180) % 360 - 180)


@pytest.mark.parametrize("azimuth", [0.0, 100.0, 250.0])
def test_lamp_lights_the_side_that_faces_it(worker: Any, ball: Path, make_cameras: Any, azimuth: float) -> None:
    lamp = {"azimuth_deg": azimuth}
    outcome = worker.run(ball, make_cameras(AROUND, 0.0), lights=[area(lamp)])
    found, elevation = brightest(outcome)
    # four cameras do not see all sides quite alike, and 4 samples are noisy
    assert apart(found, azimuth) < 6
    assert abs(elevation) < 6
    colours, normals = pixels(outcome)
    toward = np.array([np.sin(np.radians(azimuth)), -np.cos(np.radians(azimuth)), 0.0])
    facing, away = normals @ toward > 0.7, normals @ toward < -0.7
    assert colours[facing].mean() > 10 * colours[away].mean()


def test_lamp_of_a_known_power(worker: Any, ball: Path, make_cameras: Any) -> None:
    """Irradiance of a small lamp straight ahead: E = P / (pi d^2) on its axis; white diffuse surfaces show E / pi."""
    lamp = {"azimuth_deg": 0.0, "size_m": 0.05, "power_w": 50.0, "distance_m": 4.0}
    outcome = worker.run(ball, make_cameras((0.0,), 0.0), lights=[area(lamp, sky=0.0)], samples=32)
    view = outcome.channels()[0]
    found = np.mean([view[f"Combined.{c}"][22:26, 22:26].mean() for c in "RGB"])
    # the ball's front is at 3.5 m; 4 % of the shine is specular, which 6500 K (not quite white) and roughness change
    assert found == pytest.approx(50.0 / (np.pi * 3.5**2) / np.pi, rel=0.06)
    outcome = worker.run(ball, make_cameras((0.0,), 0.0), lights=[area(lamp, sky=0.0, strength=2.0)], samples=32)
    twice = np.mean([outcome.channels()[0][f"Combined.{c}"][22:26, 22:26].mean() for c in "RGB"])
    assert twice == pytest.approx(2 * found, rel=0.02)


def test_lamps_have_colour_and_are_not_seen(worker: Any, ball: Path, make_cameras: Any) -> None:
    front = make_cameras((0.0,), 0.0)
    # between the camera at 2.6 m and the ball: it must not hide it
    warm = worker.run(ball, front, lights=[area({"temperature_k": 2700.0, "distance_m": 1.5, "size_m": 1.0})])
    cold = worker.run(ball, front, lights=[area({"temperature_k": 10000.0})])
    white = worker.run(ball, front, lights=[area({"temperature_k": 6500.0})])
    ratios = []
    for outcome in (warm, white, cold):
        colours, _ = pixels(outcome)
        assert 400 < len(colours) < 900  # the ball's disc, no lamp
        ratios.append(colours[:, 0].mean() / colours[:, 2].mean())
    assert ratios[0] > 2
    assert ratios[1] == pytest.approx(1, abs=0.1)  # daylight is a little greener than a black body
    assert ratios[2] < 0.8


def patch(path: Path, column: int) -> str:
    """A dark sky with one bright patch at the horizon; return its sha256."""
    picture = np.full((32, 64, 3), 0.02, np.float32)
    picture[14:18, column - 2 : column + 2] = 60.0
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": picture}).write(str(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_sky_turns_counter_clockwise(worker: Any, ball: Path, make_cameras: Any, tmp_path: Path) -> None:
    digest = patch(tmp_path / "patch.exr", 40)
    azimuths = []
    for rotation in (0.0, 70.0, 200.0):
        light = hdri("patch.exr", digest, rotation)
        outcome = worker.run(ball, make_cameras(AROUND, 0.0), lights=[light], hdri_folder=str(tmp_path), samples=16)
        azimuths.append(brightest(outcome)[0])
    # Blender's convention for the unturned picture: its middle column is +X, columns to the right turn clockwise
    assert apart(azimuths[0], 90.0 - (40 / 64 - 0.5) * 360) < 6
    assert apart(azimuths[1], azimuths[0] + 70) < 8
    assert apart(azimuths[2], azimuths[0] + 200) < 8


def test_another_sky_than_meant_is_refused(worker: Any, ball: Path, tmp_path: Path) -> None:
    digest = patch(tmp_path / "patch.exr", 40)
    folder = str(tmp_path)
    error = worker.run(ball, lights=[hdri("patch.exr", "0" * 64)], hdri_folder=folder).error
    assert error["reason"] == "malformed"
    assert error["message"] == (
        f"light 'patch.exr': expected the file of sha256 {'0' * 64}, found {digest}; it is another picture"
    )
    error = worker.run(ball, lights=[hdri("gone.exr", digest)], hdri_folder=folder).error
    assert error["message"] == f"light 'gone.exr': it is not in {folder}; say where it lies with --hdri-folder"
    error = worker.run(ball, lights=[hdri("gone.exr", digest)]).error
    assert error["reason"] == "missing-file"
    error = worker.run(ball, lights=[hdri("nowhere")]).error
    assert "this Blender carries no such sky" in error["message"]


@pytest.mark.parametrize("name", ["city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset"])
def test_blender_carries_its_skies(worker: Any, ball: Path, name: str) -> None:
    colours, _ = pixels(worker.run(ball, lights=[hdri(name)]))
    assert colours.mean() > 0.01


def test_each_orbit_has_its_own_light(worker: Any, ball: Path, make_cameras: Any) -> None:
    """Lamps of one orbit do not shine on the next; the sky of the last does not stay."""
    names = ("a", "b", "c")
    orbits = [make_cameras((0.0,), 0.0, name=name) for name in names]
    lights = [area({"power_w": 500.0}), {"kind": "uniform", "strength": 0.5}, hdri("city")]
    together = worker.run(ball, *orbits, lights=lights)
    for orbit, light, name in zip(orbits, lights, names, strict=True):
        alone = worker.run(ball, orbit, lights=[light])
        one, two = together.channels(name)[0], alone.channels(name)[0]
        for channel in ("Combined.R", "Combined.A", "Depth.Z"):
            np.testing.assert_array_equal(one[channel], two[channel])
    uniform = together.channels("b")[0]
    inner = uniform["Combined.A"] > 0.999
    assert uniform["Combined.G"][inner].mean() == pytest.approx(0.5, abs=0.01)
