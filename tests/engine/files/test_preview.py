"""Compositing and contact sheets: the arithmetic, and where images land."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.files import composite, contact_sheet, grid, to_bytes, write_preview
from engine.files.preview import CHECKER_LEVELS, CHECKER_PX, PAPER


def test_straight_alpha_over_a_background_in_srgb() -> None:
    rgba = np.array([[[255, 0, 100, 0], [255, 0, 100, 255], [200, 100, 0, 51]]], np.uint8)
    white = composite(rgba, "white")
    assert np.allclose(white[0, 0], 1)  # the colour under alpha 0 does not show
    assert np.allclose(white[0, 1], [1, 0, 100 / 255])
    assert np.allclose(white[0, 2], 0.2 * np.array([200, 100, 0]) / 255 + 0.8)
    assert np.allclose(composite(rgba, "black")[0, 2], 0.2 * np.array([200, 100, 0]) / 255)
    picture = np.random.default_rng(0).random((1, 3, 3))
    assert np.allclose(composite(rgba, picture)[0, 0], picture[0, 0])


def test_the_checker_alternates_and_batches_work() -> None:
    clear = np.zeros((2, 5, 2 * CHECKER_PX, 2 * CHECKER_PX, 4), np.uint8)
    image = composite(clear, "checker")
    assert image.shape == (2, 5, 2 * CHECKER_PX, 2 * CHECKER_PX, 3)
    corners = image[0, 0, :: 2 * CHECKER_PX - 1, :: 2 * CHECKER_PX - 1, 0]
    assert np.array_equal(corners, [[CHECKER_LEVELS[1], CHECKER_LEVELS[0]], CHECKER_LEVELS])


def test_images_land_centred_in_their_cells() -> None:
    red, blue = np.full((10, 6, 3), (255, 0, 0), np.uint8), np.full((4, 8, 3), (0, 0, 255), np.uint8)
    sheet = contact_sheet([[red, blue], [blue]], gap_px=2)
    assert sheet.shape == (2 + 10 + 2 + 4 + 2, 2 + 8 + 2 + 8 + 2, 3)
    assert (sheet[2:12, 3:9] == (255, 0, 0)).all()
    assert (sheet[5:9, 12:20] == (0, 0, 255)).all()
    assert (sheet[14:18, 2:10] == (0, 0, 255)).all()
    assert (sheet == PAPER).all(-1).sum() == sheet.shape[0] * sheet.shape[1] - 60 - 64


def test_titles_take_room_and_are_drawn() -> None:
    image = np.full((10, 60, 3), 100, np.uint8)
    plain, titled = contact_sheet([[image]]), contact_sheet([[image]], titles=["orbit"])
    assert titled.shape[0] > plain.shape[0]
    assert titled[: titled.shape[0] - plain.shape[0]].max() > 150  # ink
    with pytest.raises(ValueError, match="titles must be one for each of 1 rows, got 2"):
        contact_sheet([[image]], titles=["a", "b"])
    with pytest.raises(ValueError, match="at least one image in every row"):
        contact_sheet([[image], []])


def test_a_preview_is_a_png_of_the_grid(tmp_path: Path, rng) -> None:
    images = rng.integers(0, 256, (5, 8, 8, 4), dtype=np.uint8)
    rows = grid(list(images), 3)
    assert [len(row) for row in rows] == [3, 2]
    write_preview(tmp_path / "a.png", rows, background="white")
    read = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(read[4:12, 4:12], to_bytes(composite(images[0], "white")))
