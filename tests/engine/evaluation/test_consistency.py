"""Views of one object agree; views that contradict each other do not, however good each of them looks."""

from dataclasses import replace

import numpy as np
import pytest

from engine.errors import OrbitError
from engine.evaluation.consistency import cross_view
from engine.files import OrbitImages
from engine.splats.fitting import FitSettings

QUICK = FitSettings(iterations=60, max_gaussians=2000, hull_cells=24)


def test_true_views_agree_and_contradicting_ones_do_not(ball: OrbitImages) -> None:
    agreeing = cross_view(ball, QUICK)
    contradicting = ball.rgba.copy()
    contradicting[1::2, ..., :3] = contradicting[1::2, ..., :3][..., ::-1]  # every other view has red and blue swapped
    found = cross_view(replace(ball, rgba=contradicting), QUICK)
    assert agreeing.psnr_db is not None
    assert found.psnr_db is not None
    # seen: 20.4 dB against 14; 60 steps are few, but what contradicts itself gets no better with more
    assert agreeing.psnr_db > 18
    assert agreeing.psnr_db > found.psnr_db + 4
    assert agreeing.ssim > found.ssim


def test_the_odd_views_are_not_looked_at_while_fitting(ball: OrbitImages) -> None:
    broken = ball.rgba.copy()
    broken[1::2] = 0
    given: list[float] = []
    settings = replace(QUICK, iterations=10)
    cross_view(replace(ball, rgba=broken), settings, progress=lambda at: given.append(at.loss))
    same: list[float] = []
    cross_view(ball, settings, progress=lambda at: same.append(at.loss))
    assert ball.rgba[1::2].any()
    assert given == same


def test_views_of_nothing_are_named(ball: OrbitImages) -> None:
    with pytest.raises(OrbitError, match="ball: the views' silhouettes have no point in common"):
        cross_view(replace(ball, rgba=np.zeros_like(ball.rgba)), QUICK)
