"""Rotations against scipy's, and the group laws that need no oracle."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from engine.geometry import matrix_from_quaternion, quaternion_from_matrix, rotation_about

EXACT = 1e-12  # float64 rounding of a few multiplications of numbers of size 1


@pytest.fixture
def quaternions(rng: np.random.Generator) -> np.ndarray:
    """Uniform rotations, and the half turns and near-half turns at which one divisor vanishes."""
    drawn = rng.normal(size=(500, 4))
    edge = np.concatenate([np.eye(4), np.eye(4) + 1e-7, np.roll(np.eye(4), 1, 0) + np.eye(4)])
    every = np.concatenate([drawn, edge])
    every /= np.linalg.norm(every, axis=-1, keepdims=True)
    return np.where(every[:, :1] < 0, -every, every)


def test_matrices_equal_scipys(quaternions):
    expected = Rotation.from_quat(np.roll(quaternions, -1, axis=-1)).as_matrix()
    np.testing.assert_allclose(matrix_from_quaternion(quaternions), expected, atol=EXACT)


def test_matrix_and_back_returns_the_quaternion(quaternions):
    np.testing.assert_allclose(quaternion_from_matrix(matrix_from_quaternion(quaternions)), quaternions, atol=EXACT)


def test_sign_and_length_of_a_quaternion_do_not_matter(quaternions):
    np.testing.assert_allclose(
        matrix_from_quaternion(-3.7 * quaternions), matrix_from_quaternion(quaternions), atol=EXACT
    )


def test_product_of_matrices_is_the_hamilton_product(quaternions):
    p, q = quaternions[:250].T, quaternions[250:500].T
    product = np.stack(
        [
            p[0] * q[0] - p[1] * q[1] - p[2] * q[2] - p[3] * q[3],
            p[0] * q[1] + p[1] * q[0] + p[2] * q[3] - p[3] * q[2],
            p[0] * q[2] - p[1] * q[3] + p[2] * q[0] + p[3] * q[1],
            p[0] * q[3] + p[1] * q[2] - p[2] * q[1] + p[3] * q[0],
        ],
        -1,
    )
    matrices = matrix_from_quaternion(quaternions[:250]) @ matrix_from_quaternion(quaternions[250:500])
    np.testing.assert_allclose(matrix_from_quaternion(product), matrices, atol=EXACT)


def test_batches_of_any_shape_and_single_ones(quaternions):
    grid = quaternions[:12].reshape(3, 4, 4)
    assert quaternion_from_matrix(matrix_from_quaternion(grid)).shape == (3, 4, 4)
    np.testing.assert_allclose(matrix_from_quaternion(grid)[1, 2], matrix_from_quaternion(grid[1, 2]), atol=EXACT)


def test_zero_quaternion_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^quaternions must not be zero: a rotation needs a direction$"):
        matrix_from_quaternion(np.array([[1.0, 0, 0, 0], [0, 0, 0, 0]]))


@pytest.mark.parametrize(("axis", "start", "end"), [("x", 1, 2), ("y", 2, 0), ("z", 0, 1)])
def test_quarter_turn_is_right_handed(axis, start, end):
    np.testing.assert_allclose(rotation_about(axis, 90.0) @ np.eye(3)[start], np.eye(3)[end], atol=EXACT)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_turns_add_up_and_equal_scipys(axis, rng):
    for first, second in rng.uniform(-720, 720, (50, 2)):
        np.testing.assert_allclose(
            rotation_about(axis, first) @ rotation_about(axis, second),
            Rotation.from_euler(axis, first + second, degrees=True).as_matrix(),
            atol=EXACT,
        )
