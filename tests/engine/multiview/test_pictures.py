"""From a picture to the framed object: which matting is used, refusals, geometry within half a pixel."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from engine.errors import PictureError
from engine.multiview.pictures import (
    HI3D_SHARE,
    VIDEOMV_SHARE,
    Picture,
    ensure_alpha,
    hi3d_framing,
    object_box,
    read_picture,
    recentred,
)


def disc(size: int, centre: tuple[float, float], radius: float, softness: float = 1.0) -> np.ndarray:
    """Alpha, 0 to 1, of an antialiased disc; centre (x, y) in pixels, pixel centres at +0.5."""
    v, u = np.mgrid[:size, :size] + 0.5
    return np.clip((radius - np.hypot(u - centre[0], v - centre[1])) / softness + 0.5, 0, 1)


def disc_picture(size: int = 300, centre: tuple[float, float] = (100.0, 170.0), radius: float = 60.0) -> Picture:
    alpha = disc(size, centre, radius)
    colour = np.broadcast_to(np.array([200, 60, 30], np.uint8), (size, size, 3))
    return Picture(np.dstack([colour, np.rint(255 * alpha).astype(np.uint8)]), "disc.png")


def over(picture: Picture, background: np.ndarray) -> Picture:
    alpha = picture.rgba[..., 3:] / 255
    rgb = np.rint(picture.rgba[..., :3] * alpha + background * (1 - alpha)).astype(np.uint8)
    return replace(picture, rgba=np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)]))


# ---------------------------------------------------------------- finding the object
def test_own_alpha_is_kept():
    picture = disc_picture()
    assert ensure_alpha(picture) is picture


@pytest.mark.parametrize("level", [255, 128, 20])
def test_an_even_background_is_taken_away(level):
    truth = disc_picture()
    found = ensure_alpha(over(truth, np.full(3, level)))
    assert found.notes == ("background of one colour taken away",)
    error = np.abs(found.rgba[..., 3].astype(int) - truth.rgba[..., 3])
    assert error.mean() < 0.4  # of 255: a ring of one pixel, some tens of levels off
    solid = truth.rgba[..., 3] == 255
    assert np.abs(found.rgba[solid].astype(int) - truth.rgba[solid]).mean() < 0.5
    seen = found.rgba[..., 3] > 40
    assert np.abs(found.rgba[seen][:, :3].astype(int) - [200, 60, 30]).max() <= 30  # the background is out of the edge


def test_a_background_with_a_vignette_and_noise_is_taken_away(rng):
    truth = disc_picture()
    v, u = np.mgrid[:300, :300] / 300 - 0.5
    studio = 225 - 60 * (u**2 + v**2)[..., None] + np.array([0, -4, -9]) + rng.normal(0, 2, (300, 300, 3))
    found = ensure_alpha(over(truth, studio))
    both = (found.rgba[..., 3] > 127) & (truth.rgba[..., 3] > 127)
    either = (found.rgba[..., 3] > 127) | (truth.rgba[..., 3] > 127)
    assert both.sum() / either.sum() > 0.98


def test_an_object_cut_by_one_side_is_found():
    truth = disc_picture(centre=(150.0, 290.0), radius=80.0)
    found = ensure_alpha(over(truth, np.full(3, 250)))
    assert np.abs(found.rgba[..., 3].astype(int) - truth.rgba[..., 3]).mean() < 0.5


@pytest.mark.parametrize(
    ("rgba", "text"),
    [
        ((9, 9, 9, 0), "a.png is transparent everywhere; expected one object; use a picture that shows it"),
        ((90, 90, 90, 255), "a.png shows nothing but its background; expected one object; use a picture that shows it"),
    ],
)
def test_nothing_there_is_said(rgba, text):
    with pytest.raises(PictureError) as caught:
        ensure_alpha(Picture(np.broadcast_to(np.array(rgba, np.uint8), (64, 64, 4)).copy(), "a.png"))
    assert str(caught.value) == text


def test_tiny_objects_are_refused_and_small_ones_warned_of(caplog):
    with pytest.raises(PictureError) as caught:
        ensure_alpha(disc_picture(radius=9))
    assert str(caught.value) == (
        "disc.png shows an object of 18 x 18 pixels; expected at least 24 on its longer side; crop or photograph it "
        "larger"
    )
    with caplog.at_level(logging.WARNING):
        ensure_alpha(disc_picture(radius=50))
    assert caplog.messages == ["disc.png shows an object of 100 x 100 pixels; below 128 the result is blurred"]


def test_colour_matting_of_a_busy_picture_is_refused(rng):
    noise = rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)
    noise[..., 3] = 255
    with pytest.raises(PictureError) as caught:
        ensure_alpha(Picture(noise, "a.png"), method="colour")
    text = str(caught.value)
    assert text.startswith("a.png has no transparency and its background is not of one colour (")
    assert text.endswith("% of its border, 75% expected); use another matting, or a picture on one colour")


def test_keep_leaves_an_opaque_picture_as_it_is():
    opaque = over(disc_picture(), np.full(3, 255))
    assert ensure_alpha(opaque, method="keep") is opaque


# ---------------------------------------------------------------- the frame
@pytest.mark.parametrize("size", [256, 511])
@pytest.mark.parametrize("radius", [30.0, 60.0])
def test_recentring_puts_the_object_in_the_middle_at_its_size(size, radius):
    framed = recentred(disc_picture(radius=radius), size)
    left, top, right, bottom = object_box(framed.rgba)
    # Half a pixel: the box is in whole pixels on either side of the resizing, and both have soft edges.
    side = VIDEOMV_SHARE * size
    assert abs((left + right) / 2 - size / 2) <= 0.5
    assert abs((top + bottom) / 2 - size / 2) <= 0.5
    # Soft edges grow with the picture: what is a tenth covered lies up to half a picture's pixel outside.
    assert abs((right - left) - side) <= 1 + side / (2 * radius)
    weights = framed.rgba[..., 3] / 255
    v, u = np.mgrid[:size, :size] + 0.5
    assert (weights * u).sum() / weights.sum() == pytest.approx(size / 2, abs=0.5)
    assert (weights * v).sum() / weights.sum() == pytest.approx(size / 2, abs=0.5)
    # Area, and with it the radius, to half a pixel.
    assert np.sqrt(weights.sum() / np.pi) == pytest.approx(side / 2, abs=0.5)


def test_the_released_numbers_and_the_two_backgrounds():
    picture = disc_picture()
    white, grey = recentred(picture, 256), recentred(picture, 256, 200 / 256, 0.5)
    left, top, right, bottom = object_box(white.rgba)
    assert abs(right - left - 200) <= 2  # a soft pixel on either side
    assert abs(bottom - top - 200) <= 2
    assert white.rgb[0, 0].tolist() == [255, 255, 255]
    assert grey.rgb[0, 0].tolist() == [128, 128, 128]
    assert white.rgb[128, 128].tolist() == grey.rgb[128, 128].tolist() == [200, 60, 30]


def test_the_placement_leads_back_to_the_picture():
    picture = disc_picture()
    placement = recentred(picture, 256).placement
    points = np.array([[0.0, 0.0], [128.0, 128.0], [256.0, 10.0]])
    assert np.allclose(placement.to_canvas(placement.to_picture(points)), points)
    # The canvas's middle is the disc's; its box is in whole pixels, hence the half.
    assert np.allclose(placement.to_picture(np.array([[128.0, 128.0]])), [[100.0, 170.0]], atol=0.5)
    assert (placement.picture_size, placement.canvas_size) == ((300, 300), (256, 256))


def test_recentring_again_changes_nothing():
    once = recentred(disc_picture(), 256)
    twice = recentred(Picture(once.rgba), 256)
    assert np.abs(twice.rgba[..., 3].astype(int) - once.rgba[..., 3]).mean() < 1  # the soft edge may move half a pixel


def test_hi3d_default_fills_as_the_training_renders():
    framed = hi3d_framing(disc_picture(), 512)
    left, _, right, _ = object_box(framed.rgba)
    assert abs((right - left) - HI3D_SHARE * 512) <= 2
    assert framed.background == 1


def test_hi3d_released_stage_1_covers_and_crops_the_middle():
    ramp = np.zeros((100, 300, 4), np.uint8)
    ramp[..., 0], ramp[..., 3] = np.arange(300) * 0.8, 255
    framed = hi3d_framing(Picture(ramp), 50, "released_stage1")
    # The square in the middle is columns 100 to 200 of the picture, at half the size.
    assert framed.rgb.shape == (50, 50, 3)
    assert (
        np.abs(framed.rgb[25, :, 0] - 0.8 * (100.5 + 2 * np.arange(50))).max() < 1.5
    )  # 0.8 floors in the ramp, and bytes
    assert np.allclose(framed.placement.to_picture(np.array([[25.0, 25.0]])), [[150.0, 50.0]])


def test_hi3d_released_stage_2_squashes():
    halves = np.zeros((100, 300, 4), np.uint8)
    halves[:, :150], halves[:, 150:] = (250, 0, 0, 255), (0, 250, 0, 0)
    framed = hi3d_framing(Picture(halves), 60, "released_stage2")
    assert framed.rgb[30, 10].tolist() == [250, 0, 0]
    assert framed.rgb[30, 50].tolist() == [255, 255, 255]
    assert framed.rgba[30, 50, 3] == 0
    assert framed.rgba[30, 10].tolist() == [250, 0, 0, 255]
    assert framed.placement.scale == (0.2, 0.6)
    assert np.allclose(framed.placement.to_picture(np.array([[30.0, 30.0]])), [[150.0, 50.0]])


def test_recentring_refuses_nonsense():
    with pytest.raises(PictureError, match=r"^the picture is transparent everywhere; expected one object; use another"):
        recentred(Picture(np.zeros((30, 30, 4), np.uint8)), 256)
    with pytest.raises(ValueError, match="longest_side_share must lie in"):
        recentred(disc_picture(), 256, 1.5)


def test_from_file_to_frame(tmp_path):
    opaque = over(disc_picture(), np.full(3, 240))
    Image.fromarray(opaque.rgba[..., :3]).save(tmp_path / "a.jpg", quality=92)
    framed = recentred(ensure_alpha(read_picture(tmp_path / "a.jpg")), 256)
    left, top, right, bottom = object_box(framed.rgba)
    assert max(right - left, bottom - top) == pytest.approx(200, abs=2)
