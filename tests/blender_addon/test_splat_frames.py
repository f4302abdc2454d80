"""Turning splats into Blender's world, held against engine.geometry. No Blender."""

import numpy as np
import pytest

from blender_addon.ply import Splats
from blender_addon.splat_frames import (
    Z_UP_FROM_PLY,
    as_seen,
    in_own_axes,
    matrices,
    multiply,
    sh_basis,
    sh_rotation,
    to_z_up,
)
from engine.geometry import Camera, frames, harmonics, look_at, matrix_from_quaternion


def random_splats(degree: int) -> Splats:
    rng = np.random.default_rng(5)
    quaternions = rng.normal(size=(20, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    sh = rng.normal(size=(20, (degree + 1) ** 2, 3))
    return Splats(rng.normal(size=(20, 3)), rng.uniform(0.1, 1, (20, 3)), quaternions, rng.uniform(size=20), sh, True)


def test_places_and_rotations_are_those_of_the_engine() -> None:
    splats = random_splats(0)
    turned = to_z_up(splats)
    poses = np.tile(np.eye(4), (20, 1, 1))
    poses[:, :3, :3], poses[:, :3, 3] = matrix_from_quaternion(splats.quaternions), splats.means
    expected = frames.from_splat_ply(poses)
    np.testing.assert_allclose(turned.means, expected[:, :3, 3], atol=1e-6)  # float32
    np.testing.assert_allclose(matrices(turned.quaternions), expected[:, :3, :3], atol=1e-6)


def test_quaternions_multiply_as_matrices_do() -> None:
    a, b = random_splats(0).quaternions, random_splats(0).quaternions[::-1]
    np.testing.assert_allclose(matrices(multiply(a, b)), matrices(a) @ matrices(b), atol=1e-12)


def test_the_harmonics_are_orthonormal() -> None:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(400_000, 3))
    basis = sh_basis(directions / np.linalg.norm(directions, axis=1, keepdims=True), 3)
    gram = 4 * np.pi * basis.T @ basis / len(basis)
    np.testing.assert_allclose(gram, np.eye(16), atol=0.02)  # Monte Carlo: 5 sigma of 400,000 draws


def test_the_harmonics_are_the_engines() -> None:
    directions = np.random.default_rng(3).normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    expected = harmonics.sh_basis(directions, 3)
    np.testing.assert_allclose(sh_basis(directions, 3), expected, atol=1e-14)  # the same sums in float64


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_a_turned_splat_sends_the_same_colour_along_turned_directions(degree: int) -> None:
    splats = random_splats(degree)
    turned = to_z_up(splats)
    directions = np.random.default_rng(1).normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    before = np.einsum("dk,nkc->dnc", sh_basis(directions, degree), splats.sh)
    after = np.einsum("dk,nkc->dnc", sh_basis(directions @ Z_UP_FROM_PLY.T, degree), turned.sh)
    np.testing.assert_allclose(after, before, atol=1e-5)  # float32 sums of 16 terms


def test_turning_back_is_the_inverse() -> None:
    there, back = sh_rotation(Z_UP_FROM_PLY, 3), sh_rotation(Z_UP_FROM_PLY.T, 3)
    np.testing.assert_allclose(there @ back, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_in_its_own_axes_a_splat_has_the_same_colours(degree: int) -> None:
    splats = random_splats(degree)
    own = in_own_axes(splats)
    directions = np.random.default_rng(1).normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found = np.einsum("dk,nkc->ndc", sh_basis(directions, degree), own)
    outside = directions @ matrices(splats.quaternions).transpose(0, 2, 1)  # [n, d, 3]
    np.testing.assert_allclose(found, sh_basis(outside, degree) @ splats.sh, atol=1e-12)  # float64


def test_splats_are_drawn_as_wide_as_3dgs_renderers_draw_them() -> None:
    scales = np.array([[0.003, 0.004, 0.001]], np.float32)
    splats = Splats(
        np.zeros((1, 3), np.float32), scales, np.array([[1, 0, 0, 0]], np.float32), np.ones(1, np.float32),
        np.zeros((1, 1, 3), np.float32), says_axes=True,
    )  # fmt: skip
    np.testing.assert_allclose(as_seen(splats, 0.0).scales, scales, rtol=1e-6)
    # variances add: 3-4-5
    np.testing.assert_allclose(as_seen(splats, 0.004).scales[0, 0], 0.005, rtol=1e-6)
    # what the engine's renderer adds in the picture: 0.3 px^2, at the distance where a pixel is 0.01 m
    camera = Camera.from_fov(look_at(np.array([0.0, -2.0, 0.0]), np.zeros(3)), 40.0, 64, 64)
    pixel_m = 2.0 / camera.focal_px
    widened = as_seen(splats, np.sqrt(0.3) * pixel_m).scales[0, 0] / pixel_m
    assert widened**2 == pytest.approx((0.003 / pixel_m) ** 2 + 0.3, rel=1e-5)
