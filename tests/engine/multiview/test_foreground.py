"""Objects over a flat background and back: round trips, holes, parts in the background's colour, noise, hints."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from engine.files import composite
from engine.multiview.foreground import alpha_from_background, compose

WHITE, GREY = (255, 255, 255), (128, 128, 128)
SIZE = 192


def mug() -> np.ndarray:
    """A shaded mug with a handle to see through, antialiased: [h, w, 4], uint8."""
    big = 4 * SIZE
    v, u = (np.mgrid[:big, :big] + 0.5) / big
    body = (abs(u - 0.42) < 0.2) & (abs(v - 0.5) < 0.3)
    distance = np.hypot(u - 0.62, v - 0.5)
    solid = body | ((distance < 0.17) & (distance > 0.11))
    shade = 150 + 60 * np.sin(12 * u) * np.cos(9 * v)
    colour = np.dstack([shade, 0.6 * shade, 0.35 * shade]) * solid[..., None]

    def down(values: np.ndarray) -> np.ndarray:
        return values.reshape(SIZE, 4, SIZE, 4, -1).mean((1, 3))

    alpha = down(solid.astype(float))
    straight = down(colour) / np.maximum(alpha, 1e-9)
    return np.rint(np.concatenate([straight, 255 * alpha], -1)).astype(np.uint8)


def decoded(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a decoder leaves it: a slight blur, fine and slow noise, another background level, JPEG's blocks."""
    soft = ndimage.gaussian_filter(rgb.astype(float), (0.6, 0.6, 0))
    slow = ndimage.gaussian_filter(rng.standard_normal(rgb.shape), (4, 4, 0))
    noisy = soft + rng.normal(0, 1.5, rgb.shape) + 1.5 * slow / slow.std() - 2
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85, subsampling=0)
    return np.asarray(Image.open(buffer))


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    a, b = found[..., 3] > 127, truth[..., 3] > 127
    return float((a & b).sum() / (a | b).sum())


def test_compose_blends_srgb_values(rng):
    rgba = rng.integers(0, 256, (2, 5, 6, 4), dtype=np.uint8)
    expected = composite(rgba, np.full((5, 6, 3), 128 / 255))
    assert np.abs(compose(rgba, GREY) - 255 * expected).max() <= 0.501  # rounding to bytes
    assert np.array_equal(compose(rgba[0], (1, 2, 3))[rgba[0, ..., 3] == 255], rgba[0, ..., :3][rgba[0, ..., 3] == 255])


@pytest.mark.parametrize("background", [WHITE, GREY, (30, 90, 200)])
def test_composing_and_recovering_is_a_round_trip(background):
    truth = mug()
    found = alpha_from_background(compose(truth, background)[None], background)[0]
    assert iou(found, truth) > 0.985
    assert np.abs(found[..., 3].astype(int) - truth[..., 3]).mean() < 1.2  # of 255, half of it at the soft edges
    solid = ndimage.binary_erosion(truth[..., 3] == 255, iterations=4)
    assert np.array_equal(found[solid], truth[solid])  # inside nothing is touched
    # What counts: put over another background it looks like the object put there.
    black = (0, 0, 0)
    assert np.abs(compose(found, black).astype(int) - compose(truth, black)).mean() < 0.6


@pytest.mark.parametrize("background", [WHITE, GREY])
def test_noise_and_blur_of_a_decoder(background, rng):
    truth = mug()
    views = np.stack([decoded(compose(truth, background), rng) for _ in range(2)])
    for found in alpha_from_background(views, background):
        assert iou(found, truth) > 0.97
        assert (found[:20, :, 3] == 0).all()  # clean outside
        assert found[SIZE // 2, round(0.68 * SIZE), 3] == 0  # through the handle
        assert (found[found[..., 3] == 0] == 0).all()


def test_a_blurred_object_is_no_fatter_than_before_it_was_blurred():
    """A network that is not sure where the object ends blurs it: half-way through the blur is its edge."""
    truth = mug()
    blurred = ndimage.gaussian_filter(compose(truth, WHITE), (5, 5, 0))
    wide, narrow = (alpha_from_background(blurred[None], WHITE, edge_px=edge)[0] for edge in (14.0, 3.0))
    area = [float((found[..., 3] > 127).sum() / (truth[..., 3] > 127).sum()) for found in (wide, narrow)]
    assert area[0] == pytest.approx(1, abs=0.1)
    assert area[1] > 1.2
    assert iou(wide, truth) > iou(narrow, truth) + 0.1


def test_no_fringe_of_the_background_is_left(rng):
    """A dark object from white: on black, nothing along its edge may be brighter than the object."""
    truth = mug()
    truth[..., :3] = (40, 30, 20)
    found = alpha_from_background(decoded(compose(truth, WHITE), rng)[None], WHITE)[0]
    on_black = compose(found, (0, 0, 0)).astype(float)
    assert np.quantile(on_black.max(-1), 0.995) < 75
    assert ndimage.gaussian_filter(on_black.max(-1), 1).max() < 75


def test_parts_in_the_backgrounds_colour_stay_solid_inside():
    """A highlight that fades to pure white is the object; a hole with a sharp rim is not."""
    v, u = np.mgrid[:SIZE, :SIZE] + 0.5
    ball = np.hypot(u - 96, v - 96)
    light = np.clip(330 - 6 * np.hypot(u - 80, v - 80), 60, 255)
    picture = np.where((ball < 70)[..., None], np.dstack([light] * 3), 255).astype(np.uint8)
    assert (picture[75:85, 75:85] == 255).all()
    found = alpha_from_background(picture[None], WHITE)[0]
    assert (found[75:85, 75:85, 3] == 255).all()
    hole = picture.copy()
    hole[90:130, 100:120] = 255
    found = alpha_from_background(hole[None], WHITE)[0]
    assert (found[93:127, 103:117, 3] == 0).all()
    assert (found[75:85, 75:85, 3] == 255).all()


def test_a_hint_decides_where_the_colour_cannot():
    """The upper half of a box is exactly the background's colour, up to the outline."""
    picture = np.full((96, 96, 3), 255, np.uint8)
    picture[48:80, 20:70] = 90
    truth = np.zeros((96, 96), np.float32)
    truth[20:80, 20:70] = 1
    without = alpha_from_background(picture[None], WHITE)[0, ..., 3]
    assert without[30, 45] == 0
    hinted = alpha_from_background(picture[None], WHITE, hint=truth[None])[0, ..., 3]
    assert hinted[30, 45] == 255
    assert ((hinted > 127) != (truth > 0.5)).sum() < 3 * (28 + 28 + 50)  # the hint's edge is trusted to two pixels
    assert (hinted[:18] == 0).all()
    truth[60:70, 40:50] = 0  # a hole that the picture does not show: the picture is dark there and wins
    assert alpha_from_background(picture[None], WHITE, hint=truth[None])[0, 65, 45, 3] == 255


def test_nothing_and_everything(rng):
    nothing = decoded(np.full((64, 64, 3), 128, np.uint8), rng)
    assert (alpha_from_background(nothing[None], GREY)[0] == 0).all()
    everything = rng.integers(0, 60, (1, 64, 64, 3), dtype=np.uint8)
    assert (alpha_from_background(everything, WHITE)[0, ..., 3] == 255).all()
    assert alpha_from_background(np.zeros((0, 8, 8, 3), np.uint8), WHITE).shape == (0, 8, 8, 4)


def test_views_do_not_influence_each_other(rng):
    views = np.stack([decoded(compose(np.roll(mug(), 9 * k, axis=1), GREY), rng) for k in range(3)])
    together = alpha_from_background(views, GREY)
    assert np.array_equal(together[1], alpha_from_background(views[1:2], GREY)[0])


@pytest.mark.parametrize(("background", "median"), [(WHITE, 0.97), (GREY, 0.95)])
def test_real_renders_with_noise(repository, rng, background, median):
    """First views of 20 real objects at 128 px, where masts and sticks are a pixel or two wide."""
    shard = repository.parent / "shared" / "data" / "orbits128" / "ring24-val-000.tar"
    if not shard.is_file():
        pytest.skip(f"no real renders: {shard} is not here")
    with tarfile.open(shard) as tar:
        names = [name for name in tar.getnames() if "rgba_00" in name][:20]
        files = [tar.extractfile(name).read() for name in names]
    truths = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")) for data in files])
    views = np.stack([decoded(compose(truth, background), rng) for truth in truths])
    scores = [iou(a, b) for a, b in zip(alpha_from_background(views, background), truths, strict=True)]
    # Over 300 views of 100 objects the medians are 0.985 and 0.965; the worst, 0.58 and 0.42, is the lattice of a
    # radio mast, which is among these 20.
    assert min(scores) > 0.4, sorted(scores)[:3]
    assert np.median(scores) > median
