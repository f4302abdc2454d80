"""Views against true ones: known errors give known figures, and the views that count are the papers'."""

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.evaluation.views import measure_views, paper_views, picture_figures


def opaque(level: int, views: int = 24, size: int = 16) -> np.ndarray:
    rgba = np.full((views, size, size, 4), level, np.uint8)
    rgba[..., 3] = 255
    return rgba


def test_a_known_difference_has_a_known_psnr() -> None:
    made = opaque(100)
    made[0, ..., :3] = 50  # the given view: counted by the papers, not by us
    figures = measure_views(made, opaque(151))
    assert figures.novel.psnr_db == pytest.approx(-20 * np.log10(51 / 255))
    assert figures.paper.psnr_db == pytest.approx((7 * -20 * np.log10(51 / 255) - 20 * np.log10(101 / 255)) / 8)
    assert figures.novel.lpips is None


def test_the_mean_is_of_the_views_own_decibels() -> None:
    made = opaque(100, views=3)
    made[2, ..., :3] = 149
    figures = measure_views(made, opaque(151, views=3)).novel
    assert figures.psnr_db == pytest.approx((-20 * np.log10(51 / 255) - 20 * np.log10(2 / 255)) / 2)


def test_what_lies_under_transparency_does_not_count() -> None:
    made, truth = opaque(0, views=2), opaque(255, views=2)
    made[..., 3] = 0
    figures = measure_views(made, truth)
    assert figures.novel.psnr_db is None  # both are white: equal pictures have no ratio
    assert figures.novel.ssim == pytest.approx(1)


def test_views_that_the_papers_count() -> None:
    assert paper_views(24) == [0, 3, 6, 9, 12, 15, 18, 21]  # VideoMV 4.2
    assert paper_views(16) == list(range(16))


def test_lpips_is_given_pictures_from_minus_one_to_one() -> None:
    seen: list[Tensor] = []

    def distance(made: Tensor, truth: Tensor) -> Tensor:
        seen.extend([made, truth])
        return (made - truth).abs().mean((1, 2, 3))

    white, black = np.ones((2, 16, 16, 3)), np.zeros((2, 16, 16, 3))
    assert picture_figures(white, black, distance).lpips == 2.0
    assert torch.equal(seen[0], torch.ones(2, 3, 16, 16))
    assert torch.equal(seen[1], -torch.ones(2, 3, 16, 16))
