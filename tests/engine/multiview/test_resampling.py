"""Resizing with alpha against what it must be exactly."""

import numpy as np
import pytest

from engine.multiview.resampling import bilinear, resample


def whole(rgba):
    return (0.0, 0.0, float(rgba.shape[1]), float(rgba.shape[0]))


@pytest.mark.parametrize("size", [7, 40, 150])
def test_one_colour_stays_that_colour_whatever_lies_under_transparency(rng, size):
    """Premultiplied: pure green under alpha 0 must not reach the edges, and no division may brighten them."""
    rgba = np.zeros((40, 40, 4), np.uint8)
    rgba[...] = (0, 255, 0, 0)
    rgba[10:29, 8:33] = (180, 40, 90, 255)
    rgba[12:20, 14:18, 3] = rng.integers(1, 256, (8, 4))
    rgba[12:20, 14:18, :3] = (180, 40, 90)
    result = resample(rgba, whole(rgba), width=size, height=size)
    seen = result[..., 3] > 0
    assert seen.any()
    # The quotient of two float32 sums with the same weights: rounding alone.
    assert np.abs(result[seen][:, :3].astype(int) - [180, 40, 90]).max() <= 1


def test_same_size_is_the_same_picture(rng):
    rgba = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    rgba[rgba[..., 3] == 0] = 0
    assert np.array_equal(resample(rgba, whole(rgba), width=30, height=20), rgba)


def test_half_the_size_keeps_the_mean_alpha_and_a_shifted_box_shifts(rng):
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[20:44, 12:50] = 255
    half = resample(rgba, whole(rgba), width=32, height=32)
    # A kernel of unit sum keeps the mean; clipping its lobes costs below a percent of the edge.
    assert half[..., 3].mean() == pytest.approx(rgba[..., 3].mean(), rel=0.01)
    moved = resample(rgba, (4.0, 6.0, 68.0, 70.0), width=32, height=32)
    assert np.array_equal(moved[:-3, :-2], half[3:, 2:])


def test_a_box_outside_is_transparent():
    rgba = np.full((10, 10, 4), 255, np.uint8)
    result = resample(rgba, (-10.0, -10.0, 20.0, 20.0), width=30, height=30)
    assert (result[10:20, 10:20] == 255).all()
    assert result[..., 3].sum() == 255 * 100
    assert (resample(rgba, (40.0, 40.0, 50.0, 50.0), width=5, height=5) == 0).all()


def test_no_ghost_outside_an_outline():
    """Lanczos would leave several levels of alpha two pixels off a hard edge; this kernel's second lobe is not there."""
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[:, 50:] = 255
    result = resample(rgba, whole(rgba), width=173, height=173)
    edge = 86.5
    assert (result[:, : int(edge - 2 * 1.73) - 1, 3] == 0).all()
    assert (result[:, int(edge + 2 * 1.73) + 1 :, 3] == 255).all()


def test_an_opaque_picture_stays_opaque_to_its_edges():
    rgba = np.full((31, 47, 4), 255, np.uint8)
    for width, height in ((13, 9), (100, 70)):
        assert (resample(rgba, whole(rgba), width=width, height=height) == 255).all()


def test_bilinear_is_opencvs():
    row = np.array([[0.0, 100.0, 40.0]])[..., None]
    # Half-pixel centres: 6 samples of 3 pixels lie at -0.25, 0.25, 0.75, 1.25, 1.75, 2.25; ends repeat.
    expected = [0, 25, 75, 85, 55, 40]
    assert np.allclose(bilinear(row, width=6, height=1)[0, :, 0], expected)
    # Not antialiased: the middle of a checker of many pixels takes two of them.
    assert np.allclose(bilinear(np.arange(9.0)[None, :, None], width=3, height=1)[0, :, 0], [1, 4, 7])
