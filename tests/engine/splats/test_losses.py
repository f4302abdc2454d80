"""SSIM against scikit-image, its written-out gradient against finite differences."""

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from engine.splats.losses import WINDOW_PX, ssim


def test_equal_pictures_score_one() -> None:
    picture = torch.rand(3, 40, 30, generator=torch.Generator().manual_seed(0))
    assert ssim(picture, picture).item() == pytest.approx(1.0, abs=1e-6)


def test_agrees_with_scikit_image_away_from_the_border() -> None:
    rng = np.random.default_rng(1)
    truth = rng.random((3, 60, 60))
    made = np.clip(truth + 0.1 * rng.standard_normal(truth.shape), 0, 1)
    _, theirs = structural_similarity(
        made, truth, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    # The mean over a window in the middle is the mean over a picture that is zero (equal, so 1) elsewhere: so compare
    # on a picture whose border is equal.
    half = 2 * WINDOW_PX
    made[:, :half], made[:, -half:], made[:, :, :half], made[:, :, -half:] = 0, 0, 0, 0
    other = truth.copy()
    other[:, :half], other[:, -half:], other[:, :, :half], other[:, :, -half:] = 0, 0, 0, 0
    _, full = structural_similarity(
        made, other, data_range=1.0, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        full=True,
    )  # fmt: skip
    ours = ssim(torch.from_numpy(made), torch.from_numpy(other)).item()
    # 1e-6: both in double precision; the windows differ only where the pictures are equal
    assert ours == pytest.approx(full.mean(), abs=1e-6)
    assert theirs.mean() < 0.99


def test_gradient_is_that_of_finite_differences() -> None:
    g = torch.Generator().manual_seed(2)
    made = torch.rand(2, 14, 15, dtype=torch.float64, generator=g).requires_grad_()
    truth = torch.rand(2, 14, 15, dtype=torch.float64, generator=g)
    assert torch.autograd.gradcheck(lambda a: ssim(a, truth), made)
