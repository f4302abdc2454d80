"""The papers' rings against the formulas that CONVENTIONS.md writes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engine.geometry
from engine.geometry import RING16, RING24, RINGS, Orbit, Ring, project
from engine.geometry.orbit import orbit_position

EXACT = 1e-12  # float64 rounding of a few multiplications of numbers of size 1

BOTH = pytest.mark.parametrize("ring", [RING24, RING16], ids=["ring24", "ring16"])


def test_the_papers_numbers():
    # VideoMV section 3.2 with G-Objaverse's camera; Hi3D section 5.1 with SyncDreamer's.
    assert Ring("ring24", 24, 39.6, 2.0, (5.0, 30.0)) == RING24
    assert Ring("ring16", 16, 49.13, 1.5, (-10.0, 40.0)) == RING16
    assert {"ring24": RING24, "ring16": RING16} == RINGS


def test_conventions_state_the_formula_that_is_coded(rng):
    stated = "`distance_m * (cos E sin A, -cos E cos A, sin E)`"
    assert stated in Path(engine.geometry.__file__).with_name("CONVENTIONS.md").read_text()
    for azimuth_deg, elevation_deg, distance_m in rng.uniform([-400, -90, 0.5], [400, 90, 4], (100, 3)):
        a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
        expected = [distance_m * np.cos(e) * np.sin(a), -distance_m * np.cos(e) * np.cos(a), distance_m * np.sin(e)]
        np.testing.assert_allclose(orbit_position(azimuth_deg, elevation_deg, distance_m), expected, atol=EXACT)


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "place"),
    [(0, 0, [0, -2, 0]), (90, 0, [2, 0, 0]), (180, 0, [0, 2, 0]), (270, 0, [-2, 0, 0]), (0, 90, [0, 0, 2])],
)
def test_compass(azimuth_deg, elevation_deg, place):
    np.testing.assert_allclose(orbit_position(float(azimuth_deg), float(elevation_deg), 2.0), place, atol=EXACT)


@BOTH
@pytest.mark.parametrize("elevation_deg", [-10.0, 0.0, 17.3, 40.0, 90.0, -90.0])
def test_every_view_looks_at_the_origin_from_its_place(ring, elevation_deg):
    orbit = ring.orbit(elevation_deg, 256, 256)
    assert len(orbit) == ring.views
    np.testing.assert_allclose(orbit.azimuth_deg, np.arange(ring.views) * 360 / ring.views, atol=EXACT)
    for view in orbit.cameras:
        pixels, depth_m = project(view, np.zeros((1, 3)))
        np.testing.assert_allclose(pixels, [[128, 128]], atol=1e-9)  # EXACT times the focal length
        np.testing.assert_allclose(depth_m, [ring.distance_m], atol=EXACT)
    places = orbit.T_world_camera[:, :3, 3]
    expected = [orbit_position(a, elevation_deg, ring.distance_m) for a in orbit.azimuth_deg]
    np.testing.assert_allclose(places, expected, atol=EXACT)


@BOTH
def test_one_step_turns_the_whole_camera_about_z(ring):
    orbit = ring.orbit(22.0, 64, 64)
    step = 2 * np.pi / ring.views
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(step), -np.sin(step)], [np.sin(step), np.cos(step)]]
    np.testing.assert_allclose(turn @ orbit.T_world_camera, np.roll(orbit.T_world_camera, -1, axis=0), atol=EXACT)


@BOTH
def test_upright(ring):
    for view in ring.orbit(25.0, 64, 64).cameras:
        pixels, _ = project(view, np.array([[0, 0, 0.2], [0, 0, -0.2]]))
        assert pixels[0, 1] < 32 < pixels[1, 1]  # what is higher in the world is higher in the picture
        np.testing.assert_allclose(pixels[:, 0], 32, atol=1e-9)


def test_from_the_front_x_is_to_the_right():
    pixels, _ = project(RING24.orbit(5.0, 64, 64).camera(0), np.array([[0.3, 0, 0]]))
    assert pixels[0, 0] > 32


def test_elevations_fill_the_papers_range(rng):
    for ring in RINGS.values():
        drawn = np.array([ring.draw_elevation_deg(rng) for _ in range(2000)])
        low, high = ring.elevation_range_deg
        assert low <= drawn.min() < low + 0.5
        assert high - 0.5 < drawn.max() < high
        # The mean of 2,000 uniform draws has a standard error of 0.65 % of the range: 5 sigma is 3.2 %.
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.033 * (high - low))


def test_subset_keeps_order_and_shares_intrinsics():
    orbit = RING24.orbit(15.0, 128, 128)
    some = orbit.subset([18, 0, 6])
    np.testing.assert_array_equal(some.azimuth_deg, [270, 0, 90])
    np.testing.assert_array_equal(some.T_world_camera[0], orbit.T_world_camera[18])
    assert (some.focal_px, some.width) == (orbit.focal_px, orbit.width)


def test_resized_keeps_the_field_of_view():
    orbit = RING16.orbit(15.0, 128, 128)
    assert orbit.resized(512, 512).fov_deg == pytest.approx(49.13, abs=1e-9)
    assert orbit.resized(512, 512).principal_px == (256.0, 256.0)


def test_elevation_beyond_the_poles_is_refused():
    with pytest.raises(ValueError, match=r"^elevation_deg must lie between -90 and 90, got 91.0$"):
        RING24.orbit(91.0, 64, 64)


def test_a_pose_without_its_azimuth_is_refused(repository):
    # In a process of its own: here jaxtyping, live in tests alone, would speak first.
    code = (
        "from dataclasses import replace; from engine.geometry import RING24; "
        "orbit = RING24.orbit(15.0, 64, 64); replace(orbit, azimuth_deg=orbit.azimuth_deg[1:])"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert child.returncode == 1
    assert (
        child.stderr.splitlines()[-1] == "ValueError: 24 poses, 23 azimuths, 24 elevations and 24 distances: one each"
    )


@pytest.mark.parametrize("pole_deg", [90.0, -90.0])
def test_a_pole_keeps_the_azimuth(pole_deg):
    """The pose at a pole is the limit of the ring's: no sudden turn of the picture between 89.9999 and 90 degrees."""
    azimuth_deg = np.array([0.0, 40.0, 250.0])
    same = np.ones(3)
    at, near = (
        Orbit.around_origin("poles", azimuth_deg, np.sign(pole_deg) * e * same, 2 * same, 40.0, 64, 64)
        for e in (90.0, 89.9999)
    )
    np.testing.assert_allclose(at.T_world_camera, near.T_world_camera, atol=1e-5)  # 1e-4 degrees are 2e-6


def test_views_of_a_sphere_are_no_ring():
    orbit = Orbit.around_origin("two", np.zeros(2), np.array([0.0, 30.0]), np.full(2, 2.0), 40.0, 64, 64)
    assert not orbit.is_ring
    assert orbit.subset([1]).is_ring
    assert RING24.orbit(10.0, 64, 64).is_ring
