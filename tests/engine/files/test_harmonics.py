"""Spherical harmonics turn with the world: against the basis in turned directions, and the sign tables of the flips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.geometry.harmonics import degree_of, rotate_sh, sh_basis, sh_rotation
from engine.geometry.rotations import matrix_from_quaternion


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), degree=st.integers(0, 3))
def test_rotated_coefficients_look_as_the_old_ones_from_the_turned_direction(seed: int, degree: int) -> None:
    rng = np.random.default_rng(seed)
    rotation = matrix_from_quaternion(unit(rng, 4))
    sh = rng.normal(size=(5, (degree + 1) ** 2, 3))
    directions = unit(rng, 40, 3)
    after = np.einsum("dk,nkc->dnc", sh_basis(directions, degree), rotate_sh(sh, rotation))
    before = np.einsum("dk,nkc->dnc", sh_basis(directions @ rotation, degree), sh)  # rows times R is R^T d
    assert np.abs(after - before).max() < 1e-12  # float64; the solve is well conditioned


def test_rotations_compose_and_undo_each_other(rng) -> None:
    a, b = (matrix_from_quaternion(unit(rng, 4)) for _ in range(2))
    assert np.allclose(sh_rotation(a, 3) @ sh_rotation(b, 3), sh_rotation(a @ b, 3), atol=1e-12)  # float64
    assert np.allclose(sh_rotation(a, 3) @ sh_rotation(a.T, 3), np.eye(16), atol=1e-12)
    assert np.allclose(sh_rotation(a, 3) @ sh_rotation(a, 3).T, np.eye(16), atol=1e-12)  # the basis is orthonormal


@pytest.mark.parametrize(
    ("flip", "signs"),
    [
        ((1, -1, -1), "--+ -++-+ -+--+-+"),  # RDF to RUB
        ((-1, -1, 1), "-+- +-+-+ -+-+-+-"),  # RDF to LUF, glTF
        ((-1, 1, -1), "+-- --+++ +++----"),  # RUB to LUF
    ],
)
def test_half_turns_only_change_the_published_signs(flip, signs) -> None:
    expected = np.diag([1.0] + [1.0 if sign == "+" else -1.0 for sign in signs.replace(" ", "")])
    assert np.allclose(sh_rotation(np.diag(np.array(flip, float)), 3), expected, atol=1e-12)  # float64


def test_the_basis_is_orthonormal_with_the_published_signs(rng) -> None:
    # Gauss-Legendre in z and even steps in azimuth integrate products of degree 6 exactly
    z, weights = np.polynomial.legendre.leggauss(8)
    azimuth = np.arange(16) * 2 * np.pi / 16
    radius = np.sqrt(1 - z**2)[:, None]
    directions = np.stack(
        [radius * np.cos(azimuth), radius * np.sin(azimuth), np.broadcast_to(z[:, None], (8, 16))], -1
    )
    basis = sh_basis(directions, 3)
    gram = np.einsum("zak,zal,z->kl", basis, basis, weights) * 2 * np.pi / 16
    assert np.allclose(gram, np.eye(16), atol=1e-12)  # exact quadrature in float64
    assert (sh_basis(np.eye(3), 1)[[1, 2, 0], [1, 2, 3]] * [1, 1, 1] * [-1, 1, -1] > 0).all()  # (-y, z, -x)


def test_the_type_is_kept_and_other_counts_are_refused() -> None:
    assert rotate_sh(np.ones((1, 4, 3), np.float32), np.eye(3)).dtype == np.float32
    with pytest.raises(
        ValueError, match=r"spherical harmonics have \[1, 4, 9, 16\] coefficients for degree 0 to 3, got 5"
    ):
        degree_of(5)
