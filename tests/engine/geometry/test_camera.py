"""Cameras: intrinsics, look_at, and the exact words with which bad poses are refused."""

import numpy as np
import pytest

from engine.geometry import Camera, focal_px_from_fov_deg, fov_deg_from_focal_px, look_at, matrix_from_quaternion
from engine.geometry.camera import check_poses

EXACT = 1e-12  # float64 rounding of a few multiplications of numbers of size 1 to 10


def random_pose(rng: np.random.Generator) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = matrix_from_quaternion(rng.normal(size=4)), rng.normal(size=3) * 3
    return pose


def camera(pose: np.ndarray | None = None, **changes) -> Camera:
    values = {"width": 64, "height": 48, "focal_px": 60.0, "principal_px": (32.0, 24.0)} | changes
    return Camera(np.eye(4) if pose is None else pose, **values)


def test_field_of_view_is_vertical_and_round_trips(rng):
    assert focal_px_from_fov_deg(90.0, 200) == pytest.approx(100.0)  # tan 45 = 1
    for fov_deg in rng.uniform(1, 179, 100):
        assert fov_deg_from_focal_px(focal_px_from_fov_deg(fov_deg, 256), 256) == pytest.approx(fov_deg, abs=1e-9)


def test_field_of_view_of_g_objaverse():
    # G-Objaverse states fy 1422.222 at 1024 px; the papers call that 39.6 deg.
    assert fov_deg_from_focal_px(1422.222, 1024) == pytest.approx(39.6, abs=0.01)


@pytest.mark.parametrize("fov_deg", [0.0, 180.0, -5.0, float("nan")])
def test_impossible_field_of_view_is_refused(fov_deg):
    with pytest.raises(ValueError, match=f"^fov_deg must lie between 0 and 180, got {fov_deg}$"):
        focal_px_from_fov_deg(fov_deg, 256)


def test_look_at_puts_the_target_ahead_and_up_upwards(rng):
    for _ in range(200):
        position, target = rng.normal(size=(2, 3)) * 3
        pose = look_at(position, target)
        check_poses(pose)
        forward = (target - position) / np.linalg.norm(target - position)
        np.testing.assert_allclose(pose[:3, 2], forward, atol=EXACT)  # +Z forward
        np.testing.assert_allclose(pose[:3, 3], position, atol=EXACT)
        assert pose[2, 0] == pytest.approx(0, abs=EXACT)  # the horizon is level
        assert pose[2, 1] < 0  # +Y of the camera points down
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1, abs=EXACT)


def test_look_at_agrees_with_blenders_front_and_top_views():
    front = look_at(np.array([0.0, -2, 0]), np.zeros(3))
    np.testing.assert_allclose(front[:3, :3].T, [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=EXACT)
    top = look_at(np.array([0.0, 0, 2]), np.zeros(3))
    np.testing.assert_allclose(top[:3, :3].T, [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=EXACT)
    below = look_at(np.array([0.0, 0, -2]), np.zeros(3))
    check_poses(below)


def test_look_at_takes_another_up(rng):
    up = np.array([0.0, 1, 0])
    for position in rng.normal(size=(50, 3)):
        assert look_at(position, np.zeros(3), up)[1, 0] == pytest.approx(0, abs=EXACT)


def test_look_at_itself_is_refused():
    with pytest.raises(ValueError, match=r"^position and target must differ, both are \[1.0, 2.0, 3.0\]$"):
        look_at(np.array([1.0, 2, 3]), np.array([1.0, 2, 3]))


def test_inverse_pose_is_the_inverse(rng):
    for _ in range(100):
        posed = camera(random_pose(rng))
        np.testing.assert_allclose(posed.T_camera_world @ posed.T_world_camera, np.eye(4), atol=EXACT)
        np.testing.assert_allclose(posed.T_camera_world, np.linalg.inv(posed.T_world_camera), atol=EXACT)


def test_intrinsics_send_the_axis_to_the_principal_point():
    off_centre = camera(principal_px=(10.5, 40.25))
    np.testing.assert_allclose(off_centre.K @ [0, 0, 1], [10.5, 40.25, 1], atol=EXACT)
    np.testing.assert_allclose(off_centre.K @ [0.5, -0.25, 1], [10.5 + 30, 40.25 - 15, 1], atol=EXACT)


def test_from_fov_centres_the_principal_point():
    made = Camera.from_fov(np.eye(4), 39.6, 320, 256)
    assert made.principal_px == (160.0, 128.0)
    assert made.fov_deg == pytest.approx(39.6, abs=1e-9)


def test_resized_sees_the_same_picture(rng):
    small = camera(random_pose(rng), principal_px=(30.0, 25.0))
    large = small.resized(256, 192)
    assert large.fov_deg == pytest.approx(small.fov_deg, abs=1e-9)
    assert large.principal_px == (120.0, 100.0)
    again = large.resized(64, 48)
    assert (again.focal_px, again.principal_px) == (small.focal_px, small.principal_px)


def test_resizing_to_another_aspect_is_refused():
    with pytest.raises(ValueError, match=r"^100 x 10 has another aspect than 64 x 48: crop first$"):
        camera().resized(100, 10)


def scaled(pose):
    pose[:3, :3] *= 1.01
    return "T_world_camera[1] must have a rotation with orthonormal columns: scaled or sheared poses are not cameras"


def sheared(pose):
    pose[0, 1] += 0.1
    return "T_world_camera[1] must have a rotation with orthonormal columns: scaled or sheared poses are not cameras"


def mirrored(pose):
    pose[:, 0] *= -1
    return "T_world_camera[1] mirrors (determinant -1): convert it with engine.geometry.frames, do not flip one axis"


def projective(pose):
    pose[3] = [0, 0, 1, 1]
    return "T_world_camera[1] must end in the row 0 0 0 1, found [0.0, 0.0, 1.0, 1.0]"


def unfinished(pose):
    pose[1, 3] = np.nan
    return "T_world_camera[1] holds values that are not finite"


@pytest.mark.parametrize("spoil", [scaled, sheared, mirrored, projective, unfinished])
def test_poses_that_are_not_rigid_are_refused_by_index(spoil):
    poses = np.stack([np.eye(4)] * 3)
    expected = spoil(poses[1])
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole text is compared below
        check_poses(poses)
    assert str(caught.value) == expected


def test_poses_stored_with_seven_decimals_pass(rng):
    check_poses(np.stack([np.round(random_pose(rng), 7) for _ in range(100)]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"width": 0}, "width and height must be positive, got 0 x 48"),
        ({"height": -1}, "width and height must be positive, got 64 x -1"),
        ({"focal_px": 0.0}, "focal_px must be positive and finite, got 0.0"),
        ({"focal_px": float("nan")}, "focal_px must be positive and finite, got nan"),
    ],
)
def test_impossible_cameras_are_refused(changes, words):
    with pytest.raises(ValueError, match=f"^{words}$"):
        camera(**changes)
