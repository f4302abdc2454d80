"""Low-quality views: kernels by their formulas, the same for the same draw, nothing beyond the object changed."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.training.data.degradations import (
    KINDS,
    SMALL,
    Degradations,
    Round,
    _convolved,
    blur_kernel,
    degraded,
    sinc_kernel,
    suited,
)  # fmt: skip

SIZE = 64
QUIET = Round(
    blur_share=0.0, sinc_share=0.0, resize_shares=(0.0, 0.0, 1.0), gaussian_share=1.0, gaussian_sigma=(0.0, 0.0),
    jpeg_quality=(95.0, 95.0),
)  # fmt: skip
NONE = Degradations(scale=1, first=QUIET, second=QUIET, final_sinc_share=0.0, mask_share=0.0)
"""Nothing but three JPEGs of quality 95."""


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Four views of a smooth coloured disc over grey, and its alpha."""
    along = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    x, y = np.meshgrid(along, along)
    alpha = np.repeat(np.where(np.hypot(x, y) < 0.35, 255, 0).astype(np.uint8)[None], 4, 0)
    colour = np.stack([128 + 100 * x, 128 + 100 * y, 100 + 60 * y], -1) + 25 * np.sin(80 * x)[..., None]
    rgb = np.where(alpha[..., None] > 0, colour, 128).round().astype(np.uint8)
    return rgb, alpha


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(np.square((a.astype(float) - b) / 255).mean())


def low(views, settings: Degradations, seed: int = 0) -> np.ndarray:
    rgb, alpha = views
    return degraded(rgb, alpha, (128 / 255,) * 3, np.random.default_rng(seed), settings)


# ---------------------------------------------------------------- kernels
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_sum_to_one_and_are_symmetric(kind) -> None:
    kernel = blur_kernel(kind, 21, (2.0, 1.0), 0.4, 1.3 if "_" in kind else 1.0)
    assert kernel.sum() == pytest.approx(1)
    assert np.allclose(kernel, kernel[::-1, ::-1])
    assert (kernel > 0).all()


def test_standard_deviations_lie_along_the_axes() -> None:
    kernel = blur_kernel("aniso", 21, (2.0, 0.8), 0.0, 1.0)
    along = np.arange(21) - 10
    assert (kernel.sum(0) @ along**2) ** 0.5 == pytest.approx(2.0, rel=1e-3)  # the kernel ends at 5 deviations
    assert (kernel.sum(1) @ along**2) ** 0.5 == pytest.approx(0.8, rel=1e-3)
    assert np.allclose(blur_kernel("aniso", 21, (2.0, 0.8), math.pi / 2, 1.0), kernel.T)
    assert np.allclose(blur_kernel("generalized_aniso", 21, (2.0, 0.8), 0.0, 1.0), kernel)  # beta 1 is Gaussian
    flat = blur_kernel("plateau_iso", 21, (3.0, 1.0), 0.0, 8.0)
    assert flat[10, 8] == pytest.approx(flat[10, 10], rel=0.01)
    assert flat[10, 4] < 0.01 * flat[10, 10]


@pytest.mark.parametrize("cutoff", [math.pi / 4, math.pi / 2])
def test_sinc_kernels_pass_low_frequencies_only(cutoff: float) -> None:
    kernel = sinc_kernel(cutoff, 101)  # long, so that the cut is sharp
    response = np.abs(np.fft.fft2(np.fft.ifftshift(kernel)))[0, :51]
    frequency = 2 * math.pi * np.arange(51) / 101
    # the cut of an infinite kernel rings by 9 % (Gibbs); this one ends after a dozen of its waves
    assert np.abs(response[frequency < 0.8 * cutoff] - 1).max() < 0.12
    assert response[frequency > 1.25 * cutoff].max() < 0.12
    assert kernel.min() < 0  # it rings


def test_filtering_is_plain_correlation_with_reflected_borders(rng: np.random.Generator) -> None:
    view, kernel = rng.random((9, 11, 3), np.float32), rng.random((5, 5))
    padded = np.pad(view, ((2, 2), (2, 2), (0, 0)), "reflect")
    expected = sum(
        kernel[4 - i, 4 - j] * padded[i : i + 9, j : j + 11] for i in range(5) for j in range(5)
    )  # fmt: skip
    assert np.abs(_convolved(view, kernel) - expected).max() < 1e-5  # float32 transforms


# ---------------------------------------------------------------- clips
def test_the_same_draw_gives_the_same_views(views) -> None:
    for settings in (Degradations(), SMALL):
        assert np.array_equal(low(views, settings), low(views, settings))
        assert not np.array_equal(low(views, settings), low(views, settings, seed=1))


def test_first_view_and_background_stay(views) -> None:
    rgb, alpha = views
    for seed in range(8):
        made = low(views, Degradations(), seed)
        assert np.array_equal(made[0], rgb[0])
        assert (made[alpha == 0] == 128).all()
        assert made.shape == rgb.shape
        assert all(psnr(made[view], rgb[view]) < 40 for view in range(1, 4))


def test_without_any_part_only_jpeg_is_left(views) -> None:
    rgb, _ = views
    inside = np.s_[1:, 20:44, 20:44]
    assert psnr(low(views, NONE)[inside], rgb[inside]) > 33  # three times quality 95, chroma at half resolution


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("blur", replace(NONE, first=replace(QUIET, blur_share=1.0, sigma_px=(2.5, 3.0)))),
        ("sinc", replace(NONE, first=replace(QUIET, blur_share=1.0, sinc_share=1.0))),
        ("resize", replace(NONE, first=replace(QUIET, resize_shares=(0.0, 1.0, 0.0), resize=(0.15, 0.2)))),
        ("gaussian", replace(NONE, first=replace(QUIET, gaussian_sigma=(20.0, 20.0)))),
        ("poisson", replace(NONE, first=replace(QUIET, gaussian_share=0.0, poisson_scale=(2.0, 2.0)))),
        ("grey noise", replace(NONE, second=replace(QUIET, gaussian_sigma=(20.0, 20.0), grey_share=1.0))),
        ("jpeg", replace(NONE, first=replace(QUIET, jpeg_quality=(5.0, 5.0)))),
        ("scale", replace(NONE, scale=8)),
        ("final sinc", replace(NONE, final_sinc_share=1.0)),
        ("masks", replace(NONE, mask_share=1.0)),
    ],
)
def test_each_part_does_something(views, part: str, settings: Degradations) -> None:
    inside = np.s_[1:, 20:44, 20:44]
    worst = min(psnr(low(views, settings, seed)[inside], low(views, NONE, seed)[inside]) for seed in range(3))
    assert worst < 38, part


def test_gaussian_noise_has_the_asked_deviation(rng: np.random.Generator) -> None:
    flat = np.full((3, SIZE, SIZE, 3), 128, np.uint8)
    loud = replace(QUIET, gaussian_sigma=(12.0, 12.0), grey_share=1.0, jpeg_quality=(100.0, 100.0))
    settings = replace(NONE, first=loud, second=replace(QUIET, jpeg_quality=(100.0, 100.0)))
    made = degraded(flat, np.full(flat.shape[:3], 255, np.uint8), (0.0, 0.0, 0.0), rng, settings)[1:].astype(float)
    assert made.std() == pytest.approx(12, rel=0.05)  # 8192 numbers: 1 % deviation; JPEG and rounding add a little
    assert np.abs(made - made.mean(-1, keepdims=True)).max() < 4  # grey but for JPEG's rounding


def test_masks_cut_holes_of_the_background(views) -> None:
    rgb, alpha = views
    made = low(views, replace(NONE, mask_share=1.0))
    holes = [(np.abs(made[view].astype(int) - 128).max(-1) <= 3) & (alpha[view] > 0) for view in range(4)]
    usual = [(np.abs(rgb[view].astype(int) - 128).max(-1) <= 3) & (alpha[view] > 0) for view in range(4)]
    assert all(holes[view].sum() > usual[view].sum() + 5 for view in range(1, 4))
    assert not np.array_equal(holes[1], holes[2])


def test_views_too_small_for_the_kernels_pass(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (2, 8, 8, 3), np.uint8)
    for seed in range(10):
        made = degraded(
            rgb, np.full((2, 8, 8), 255, np.uint8), (1.0, 1.0, 1.0), np.random.default_rng(seed), Degradations()
        )
        assert made.shape == rgb.shape


def test_small_views_suffer_less() -> None:
    assert suited(512) == Degradations()
    assert suited(256) is suited(128) is SMALL
