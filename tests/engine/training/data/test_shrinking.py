"""Views are averaged down in premultiplied alpha, exactly, at any ratio."""

import numpy as np
import pytest

from engine.training.data.shrinking import over, shrunk, shrunk_depth


def premultiplied(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:] / 255
    return np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], -1)


@pytest.mark.parametrize(("side", "size"), [(24, 12), (24, 8), (24, 24), (25, 10), (24, 18), (17, 16)])
def test_means_over_areas(rng: np.random.Generator, side: int, size: int) -> None:
    rgba = rng.integers(0, 256, (2, side, side, 4), np.uint8)
    fine = premultiplied(np.repeat(np.repeat(rgba, size, 1), size, 2))  # each new pixel is side x side of these
    expected = fine.reshape(2, size, side, size, side, 4).mean((2, 4))
    made = premultiplied(shrunk(rgba, size))
    # alpha is rounded (0.5), and colour is rounded and then weighted with the rounded alpha (0.5 + 0.5)
    assert np.abs(made - expected).max() <= 1.01


def test_colours_under_transparent_pixels_do_not_leak() -> None:
    rgba = np.zeros((1, 4, 4, 4), np.uint8)
    rgba[..., 0] = 255  # red where nothing is
    rgba[:, :, :2] = (0, 200, 0, 255)
    rgba[:, :, 1] = (255, 0, 0, 0)
    made = shrunk(rgba, 2)
    assert made[0, 0, 0].tolist() == [0, 200, 0, 128]
    assert made[0, 0, 1].tolist() == [0, 0, 0, 0]


def test_depth_is_averaged_where_something_is() -> None:
    depth = np.array([[[1.0, 3.0, 0, 0], [0, 0, 0, 5.0]] * 2], np.float32)
    assert shrunk_depth(depth, 2).tolist() == [[[2.0, 0.0], [2.0, 0.0]]]


def test_nothing_is_enlarged() -> None:
    with pytest.raises(ValueError, match="views of 8 px are never enlarged, 9 px were asked for"):
        shrunk(np.zeros((1, 8, 8, 4), np.uint8), 9)


def test_over_a_background() -> None:
    rgba = np.array([[[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]]], np.uint8)
    assert over(rgba, (1.0, 0.0, 0.5)).tolist() == [[[[10, 20, 30], [255, 0, 128], [204, 0, 102]]]]
