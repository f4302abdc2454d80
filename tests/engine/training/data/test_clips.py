"""Clips: what is drawn depends on object and pass only; cameras follow the pictures; keys follow the pixels."""

from dataclasses import replace

import numpy as np
import pytest

from engine.files import OrbitImages
from engine.files.orbit_json import check_document, document_from_images
from engine.geometry import RING24, unproject_depth
from engine.training.data.clips import ClipMaker, mirrored_orbit
from engine.training.data.colours import Jitter, recoloured
from engine.training.data.tally import BadSample
from engine.training.plans import DataPlan
from engine.training.types import Clip, Position
from tests.engine.balls import ball_colours
from tests.engine.training.small_orbits import VIEWS, small_orbit

PLAIN = DataPlan(orbit="*", views=VIEWS, size_px=16, roll=0.0)


def clip_of(images: OrbitImages, plan: DataPlan, *, epoch: int = 0, seed: int = 0, augment: bool = True) -> Clip:
    return ClipMaker(plan, seed, augment=augment).from_images(images, Position(0, epoch, 0))


def ball_plan(ball: OrbitImages, **changes) -> DataPlan:
    return replace(DataPlan(orbit="*", views=len(ball.orbit), size_px=ball.orbit.width, depth=True), **changes)


def colours_seen_from(clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """World points of well-inside pixels by the clip's own depth and cameras, and the colours that are there."""
    points, colours = [], []
    for view, camera in enumerate(clip.orbit.cameras):
        inside = (clip.depth_m[view] > 0) & (clip.rgba[view, ..., 3] == 255)
        points.append(unproject_depth(camera, clip.depth_m[view].astype(float))[inside])
        colours.append(clip.rgba[view, ..., :3][inside] / 255)
    return np.concatenate(points), np.concatenate(colours)


@pytest.mark.parametrize("roll", [0.0, 1.0])
@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_cameras_follow_the_pictures(ball: OrbitImages, mirror: float, roll: float) -> None:
    """Every pixel's colour is that of the place where depth and camera put it: in the world, or in its mirror."""
    clip = clip_of(ball, ball_plan(ball, mirror=mirror, roll=roll), epoch=3)
    points, colours = colours_seen_from(clip)
    there = points * [-1, 1, 1] if mirror else points
    error = np.abs(ball_colours(there) - colours)
    # stored as bytes, averaged over a pixel of a curved surface
    assert np.median(error) < 0.01
    wrong = np.abs(ball_colours(there * [-1, 1, 1]) - colours)[:, 0]  # red tells x from -x
    assert np.median(wrong) > 0.1
    assert (clip.start != 0) == (roll == 1)


def test_a_mirrored_orbit_is_a_valid_orbit_whose_azimuths_rise(ball: OrbitImages) -> None:
    clip = clip_of(ball, ball_plan(ball, mirror=1.0, roll=0.0))
    assert np.allclose(clip.orbit.azimuth_deg, ball.orbit.azimuth_deg)  # a whole ring mirrored is the ring
    assert np.allclose(clip.orbit.T_world_camera, ball.orbit.T_world_camera, atol=1e-9)  # exact but for rounding
    assert np.array_equal(clip.rgba[1], ball.rgba[-1][:, ::-1])
    check_document(document_from_images(replace(ball, orbit=clip.orbit), None), "mirrored")


def test_mirrored_cameras_off_the_middle_see_mirrored_points(rng: np.random.Generator) -> None:
    orbit = replace(RING24.orbit(20.0, 64, 64).subset([1, 5]), principal_px=(30.0, 33.0))
    points = rng.uniform(-0.4, 0.4, (50, 3))
    mirrored = mirrored_orbit(orbit)
    assert mirrored.azimuth_deg.tolist() == [345.0, 285.0]
    for before, after in zip(orbit.cameras, mirrored.cameras, strict=True):
        u, v = pixels(before, points)
        assert np.allclose(pixels(after, points * [-1, 1, 1]), (64 - u, v), atol=1e-9)


def pixels(camera, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Project by hand: K and pose, nothing else."""
    seen = points @ camera.T_camera_world[:3, :3].T + camera.T_camera_world[:3, 3]
    projected = seen @ camera.K.T
    return projected[:, 0] / projected[:, 2], projected[:, 1] / projected[:, 2]


def test_as_many_clips_roll_as_are_asked_for(ball: OrbitImages) -> None:
    starts = [clip_of(ball, ball_plan(ball, roll=0.5), epoch=epoch).start for epoch in range(200)]
    rolled = 0.5 * (1 - 1 / len(ball.orbit.azimuth_deg))  # some of them onto the first view
    assert np.mean(np.array(starts) > 0) == pytest.approx(rolled, abs=0.11)  # three deviations of 200 draws


def test_rolling_rolls_pictures_cameras_and_depth(ball: OrbitImages) -> None:
    clip = clip_of(ball, ball_plan(ball), epoch=5)
    views = len(ball.orbit)
    assert 0 < clip.start < views
    for place in range(views):
        stored = (clip.start + place) % views
        assert np.array_equal(clip.rgba[place], ball.rgba[stored])
        assert np.array_equal(clip.depth_m[place], ball.depth_m[stored])
        assert np.array_equal(clip.orbit.T_world_camera[place], ball.orbit.T_world_camera[stored])
        assert clip.orbit.azimuth_deg[place] == ball.orbit.azimuth_deg[stored]


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_rebasing_turns_the_world(ball: OrbitImages, mirror: float) -> None:
    clip = clip_of(ball, ball_plan(ball, rebase=True, mirror=mirror), epoch=5)
    step = 360 / len(ball.orbit)
    assert clip.start > 0
    assert np.allclose(clip.orbit.azimuth_deg, np.arange(len(ball.orbit)) * step)
    check_document(document_from_images(replace(ball, orbit=clip.orbit), None), "rebased")
    points, colours = colours_seen_from(clip)
    angle = np.radians(clip.start * step)
    back = points @ np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    back = back * [-1, 1, 1] if mirror else back
    assert np.median(np.abs(ball_colours(back) - colours)) < 0.01  # as above


def test_the_draw_depends_on_seed_object_and_pass_alone() -> None:
    plan = replace(PLAIN, roll=1.0, mirror=0.5, colour=0.5, background="random")
    images = small_orbit(1)

    def look(images=images, **options):
        clip = clip_of(images, plan, **options)
        return clip.start, clip.rgba.tobytes(), clip.background, clip.seed

    assert look(epoch=4) == look(epoch=4)
    others = [look(epoch=5), look(epoch=4, seed=1), look(replace(images, uid="other"), epoch=4)]
    others.append(look(replace(images, orbit=replace(images.orbit, name="ring9")), epoch=4))
    assert len({other[3] for other in others}) == 4
    assert all(other[1:3] != look(epoch=4)[1:3] for other in others)


def test_shares_of_what_is_drawn() -> None:
    maker = ClipMaker(replace(PLAIN, roll=1.0, mirror=0.25, background="random"), 0)
    drawn = [maker.drawn("object", "ring6", VIEWS, epoch) for epoch in range(400)]
    assert np.bincount([one.start for one in drawn], minlength=VIEWS).min() > 40  # 67 expected, deviation 7.5
    backgrounds = [one.background for one in drawn]
    assert 95 < sum(b == (1.0, 1.0, 1.0) for b in backgrounds) < 172  # a third, 4 standard deviations
    assert 95 < sum(b == (128 / 255,) * 3 for b in backgrounds) < 172
    assert 65 < sum(one.mirrored for one in drawn) < 135  # a quarter, 4 standard deviations


def test_validation_draws_nothing() -> None:
    plan = replace(PLAIN, roll=1.0, mirror=1.0, colour=1.0, background="random")
    clip = clip_of(small_orbit(0), plan, augment=False, epoch=7)
    assert np.array_equal(clip.rgba, small_orbit(0).rgba)
    assert (clip.start, clip.background) == (0, (1.0, 1.0, 1.0))
    assert clip.orbit.azimuth_deg.tolist() == small_orbit(0).orbit.azimuth_deg.tolist()


def test_some_views_begin_with_the_start_view_and_go_round() -> None:
    images = small_orbit(0, views=12)
    plan = replace(PLAIN, views=4, roll=1.0)
    chosen = set()
    for epoch in range(30):
        clip = clip_of(images, plan, epoch=epoch)
        turned = (clip.orbit.azimuth_deg - images.orbit.azimuth_deg[clip.start]) % 360
        assert turned[0] == 0
        assert (np.diff(turned) > 0).all()
        assert clip.pixels_key == ""
        chosen.add(tuple(turned))
    assert len(chosen) > 20
    assert clip_of(images, plan, augment=False).orbit.azimuth_deg.tolist() == [0, 90, 180, 270]


# ---------------------------------------------------------------- keys
def test_keys_follow_pixels_not_the_roll() -> None:
    plan = replace(PLAIN, roll=1.0, mirror=0.5, colour=0.5, background="random", variants=3)
    clips = [clip_of(small_orbit(0), plan, epoch=epoch) for epoch in range(30)]
    assert len({clip.pixels_key for clip in clips}) == 3
    assert len({(clip.pixels_key, clip.start) for clip in clips}) > 10
    for clip in clips:
        same = next(other for other in clips if other.pixels_key == clip.pixels_key)
        assert np.array_equal(np.roll(clip.rgba, clip.start, 0), np.roll(same.rgba, same.start, 0))
        assert clip.background == same.background


def test_keys_tell_all_else_apart() -> None:
    images, plan = small_orbit(0), replace(PLAIN, roll=1.0)
    brighter = replace(images, rgba=np.minimum(images.rgba, 200))
    keys = [
        clip_of(images, plan).pixels_key,
        clip_of(replace(images, uid="other"), plan).pixels_key,
        clip_of(replace(images, orbit=replace(images.orbit, name="ring9")), plan).pixels_key,
        clip_of(images, replace(plan, mirror=1.0)).pixels_key,
        clip_of(images, replace(plan, background=(0.5, 0.5, 0.5))).pixels_key,
        clip_of(images, replace(plan, size_px=8)).pixels_key,
        clip_of(images, replace(plan, colour=0.5, variants=1)).pixels_key,
        clip_of(brighter, plan).pixels_key,  # rendered again under the same name
    ]
    assert len(set(keys)) == len(keys)
    assert all(keys)
    assert clip_of(images, plan, epoch=9).pixels_key == keys[0]


@pytest.mark.parametrize("endless", [{"colour": 0.1}, {"background": "random"}])
def test_what_never_comes_again_has_no_key(endless: dict) -> None:
    assert clip_of(small_orbit(0), replace(PLAIN, **endless)).pixels_key == ""


# ---------------------------------------------------------------- texts, sizes, depth
def test_captions() -> None:
    plan = replace(PLAIN, caption="object", caption_suffix=", 3d asset")
    assert clip_of(small_orbit(3), plan).caption == "a thing called 3, 3d asset"
    assert clip_of(replace(small_orbit(3, caption=""), label="lamp"), plan).caption == "lamp, 3d asset"
    assert clip_of(small_orbit(3), replace(plan, caption="empty")).caption == ""
    with pytest.raises(BadSample, match=r"object-003.ring6 \(has neither caption nor label\)"):
        clip_of(small_orbit(3, caption=""), plan)


def test_smaller_views_have_cameras_of_their_size(ball: OrbitImages) -> None:
    clip = clip_of(ball, ball_plan(ball, size_px=18))
    assert clip.rgba.shape[1:3] == clip.depth_m.shape[1:] == (18, 18)
    assert (clip.orbit.width, clip.orbit.fov_deg) == (18, pytest.approx(ball.orbit.fov_deg))
    points, _ = colours_seen_from(clip)
    assert np.median(np.abs(np.linalg.norm(points, axis=1) - 0.5)) < 0.004  # half a metre of ball, 3 cm pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"size_px": 32},
            "shards hold 16 px, the recipe trains at 32: render larger ones, or train smaller (turntable train --size-px 16)",
        ),
        (
            {"views": 24},
            "shards hold orbits of 6 views, the recipe trains on 24: name others, or render them with turntable-farm run --views 24",
        ),
    ],
)
def test_what_all_shards_lack_is_said(change: dict, message: str) -> None:
    with pytest.raises(BadSample) as caught:
        clip_of(small_orbit(0), replace(PLAIN, **change))
    assert caught.value.all_so == message


# ---------------------------------------------------------------- colours
def test_jitter_changes_views_alike_and_leaves_alpha() -> None:
    images = replace(small_orbit(0), rgba=np.repeat(small_orbit(0).rgba[:1], VIEWS, 0))
    clip = clip_of(images, replace(PLAIN, colour=1.0))
    assert np.array_equal(clip.rgba[..., 3], images.rgba[..., 3])
    assert (clip.rgba == clip.rgba[:1]).all()
    assert np.abs(clip.rgba[..., :3].astype(int) - images.rgba[..., :3]).max() > 20


def test_each_part_of_a_jitter() -> None:
    rgba = np.array([[[[100, 150, 200, 255], [60, 60, 60, 255], [9, 9, 9, 0]]]], np.uint8)
    assert recoloured(rgba, Jitter(brightness=1.2))[0, 0].tolist() == [
        [120, 180, 240, 255],
        [72, 72, 72, 255],
        [9, 9, 9, 0],
    ]
    grey = 0.299 * 100 + 0.587 * 150 + 0.114 * 200
    assert recoloured(rgba, Jitter(saturation=0.0))[0, 0, 0].tolist() == [round(grey)] * 3 + [255]
    mean = (grey + 60) / 2
    assert recoloured(rgba, Jitter(contrast=0.0))[0, 0, 1].tolist() == [round(mean)] * 3 + [255]
    turned = recoloured(rgba, Jitter(hue_deg=180.0))[0, 0]
    assert turned[1].tolist() == [60, 60, 60, 255]
    assert abs(turned[0, :3] @ [0.299, 0.587, 0.114] - grey) < 1  # luma stays, to rounding
    assert turned[0, 0] > turned[0, 2]  # blue has become orange
