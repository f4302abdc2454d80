"""What is refused, flagged and kept, with the exact words."""

import json
from dataclasses import replace

import numpy as np
import pytest

from engine.geometry import RING24
from render_farm.checks import Verdict, examine
from render_farm.records import Filters

KEEP = Filters()
TEXTURED = {"textured": "image"}


def judge(images, filters=KEEP, facts=TEXTURED) -> Verdict:
    return examine((images,), facts, filters)


def reason(verdict: Verdict) -> str | None:
    return None if verdict.refusal is None else verdict.refusal.reason


def test_a_right_orbit_passes_and_its_measures_are_json(body):
    verdict = judge(body)
    assert (verdict.refusal, verdict.flags) == (None, ())
    assert json.loads(json.dumps(verdict.quality)) == verdict.quality
    measured = verdict.quality["ring24"]
    assert measured["coverage"]["mean"] == pytest.approx((body.rgba[..., 3] > 0).mean(), abs=1e-6)
    assert len(measured["coverage"]["shares"]) == len(measured["border"]["touches"]) == 24
    assert measured["border"]["views"] == 0
    assert measured["depth"]["outside_share"] == measured["depth"]["missing_share"] == 0
    assert measured["normals"]["away_share"] == 0
    assert measured["agreement"]["median_px"] < 0.01
    assert len(verdict.quality["picture_hash"]) == 63


def test_without_depth_and_normals_their_checks_are_left_out(body):
    verdict = judge(replace(body, depth_m=None, normal=None))
    assert verdict.refusal is None
    measured = verdict.quality["ring24"]
    assert (measured["depth"], measured["normals"], measured["agreement"]) == (None, None, None)


def test_no_orbit_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="examine needs at least one orbit, got none"):
        examine((), {}, KEEP)


def test_empty_pictures_are_blank(body):
    verdict = judge(replace(body, rgba=np.zeros_like(body.rgba), depth_m=None, normal=None))
    assert verdict.refusal is not None
    assert verdict.refusal.message == (
        "body, orbit ring24: all 24 pictures are empty: expected the object, found nothing opaque; are its materials "
        "fully transparent?"
    )
    assert (verdict.refusal.reason, verdict.refusal.stage) == ("blank", "checking")


def test_a_lost_picture_is_blank(body):
    rgba = body.rgba.copy()
    rgba[[7, 9]] = 0
    verdict = judge(replace(body, rgba=rgba))
    assert verdict.refusal is not None
    assert verdict.refusal.message == (
        "body, orbit ring24: views 7, 9 are empty: expected the object, which views beside show large, found nothing; "
        "render it again, and see the child's log if they stay empty"
    )


def test_a_sheet_seen_from_its_edge_is_flagged(body):
    """A plane through the axis covers |cos| of its best; at 90 and 270 degrees nothing is left of it."""
    rgba = np.zeros_like(body.rgba)
    for view, azimuth in enumerate(body.orbit.azimuth_deg):
        half = round(40 * abs(np.cos(np.radians(azimuth))))
        rgba[view, 20:108, 64 - half : 64 + half] = 200
    verdict = judge(replace(body, rgba=rgba, depth_m=None, normal=None))
    assert (verdict.refusal, verdict.flags) == (None, ("blank",))
    assert verdict.quality["ring24"]["coverage"]["blank_views"] == [6, 18]


def test_tiny_objects_are_refused_below_the_filter(body):
    share = body.rgba[..., 3].mean() / 255
    assert reason(judge(body, Filters(tiny_coverage=share * 0.99))) is None
    assert reason(judge(body, Filters(tiny_coverage=share * 1.01))) == "tiny"


@pytest.mark.parametrize(("choice", "flags", "refused"), [
    ("keep", (), None), ("flag", ("cropped",), None), ("refuse", (), "cropped"),
])  # fmt: skip
def test_cropped_objects_are_for_the_filter(body, choice, flags, refused):
    rgba = body.rgba.copy()
    rgba[3, :, 0] = 255
    verdict = judge(replace(body, rgba=rgba, depth_m=None, normal=None), Filters(cropped=choice))
    assert (verdict.flags, reason(verdict)) == (flags, refused)
    border = verdict.quality["ring24"]["border"]
    assert (border["left_views"], border["right_views"], border["views"]) == (1, 0, 1)
    assert border["touches"].index(True) == 3


@pytest.mark.parametrize(("choice", "flags", "refused"), [
    ("keep", (), None), ("flag", ("over-exposed",), None), ("refuse", (), "over-exposed"),
])  # fmt: skip
def test_over_exposed_objects_are_for_the_filter(body, choice, flags, refused):
    rgba = np.where(body.rgba[..., 3:] > 0, np.uint8(255), body.rgba)
    verdict = judge(replace(body, rgba=rgba), Filters(over_exposed=choice))
    assert (verdict.flags, reason(verdict)) == (flags, refused)
    assert verdict.quality["ring24"]["exposure"]["white_share"] == 1.0


def spoiled_depth(body, how):
    depth = body.depth_m.copy()
    there = depth > 0
    if how == "nan":
        depth[4, 60, 60] = np.nan
    elif how == "far":
        depth[there] += 0.8
    elif how == "missing":
        depth[:, 64:] = 0
    elif how == "surplus":
        depth[:, :12] = 2.0
    return depth


@pytest.mark.parametrize(("how", "words"), [
    ("nan", "expected finite depths from 0 up, found NaN, infinite or negative ones; render it again"),
    ("far", "expected depths within 0.88 m of each camera's distance, found 2."),
    ("missing", "expected depth where the object is solid, found none on"),
    ("surplus", "expected no depth where nothing is, found"),
])  # fmt: skip
def test_impossible_depth_is_refused(body, how, words):
    verdict = judge(replace(body, depth_m=spoiled_depth(body, how)))
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "bad-depth"
    assert words in verdict.refusal.message


def spoiled_normals(body, how):
    normal = body.normal.copy()
    if how == "infinite":
        normal[0, 60, 60] = np.inf
    elif how == "long":
        normal *= 1.1
    elif how == "away":
        normal = -normal
    elif how == "missing":
        normal[:, 64:] = 0
    elif how == "camera space":
        normal = np.einsum("nhwc,ncd->nhwd", normal, body.orbit.T_world_camera[:, :3, :3]).astype(np.float32)
    return normal


@pytest.mark.parametrize(("how", "words"), [
    ("infinite", "expected finite normals"), ("long", "expected normals of length 1"), ("away", "facing away"),
    ("missing", "expected normals where the object is solid"), ("camera space", "facing away"),
])  # fmt: skip
def test_impossible_normals_are_refused(body, how, words):
    verdict = judge(replace(body, normal=spoiled_normals(body, how)))
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "bad-normals"
    assert words in verdict.refusal.message


def test_soft_edges_without_depth_are_right(body):
    """Antialiased edges: alpha reaches half a pixel farther than the depth of the pixel's centre, and the other way."""
    alpha = body.rgba[..., 3].astype(np.float32)
    soft = (alpha + np.roll(alpha, 1, 1) + np.roll(alpha, 1, 2) + np.roll(alpha, (1, 1), (1, 2))) / 4
    rgba = np.concatenate([np.full_like(body.rgba[..., :3], 90), soft[..., None].astype(np.uint8)], -1)
    assert judge(replace(body, rgba=rgba)).refusal is None


def test_views_that_contradict_each_other_are_refused(body):
    depth, normal, rgba = body.depth_m.copy(), body.normal.copy(), body.rgba.copy()
    for array in (depth, normal, rgba):
        array[[5, 6]] = array[[6, 5]]
    verdict = judge(replace(body, depth_m=depth, normal=normal, rgba=rgba))
    assert verdict.refusal is not None
    assert verdict.refusal.reason == "inconsistent"
    assert verdict.refusal.message.startswith(
        "body, orbit ring24: expected every view within 0.25 px of the others, found three quarters of view "
    )
    wrong = replace(RING24.orbit(20.0, 128, 128), focal_px=body.orbit.focal_px * 1.1)
    assert reason(judge(replace(body, orbit=wrong))) == "inconsistent"


@pytest.mark.parametrize(("textured", "keep", "plain", "refuse"), [
    ("image", None, None, None), ("vertex", None, None, None), ("colours", None, None, "untextured"),
    ("plain", None, "untextured", "untextured"), (None, None, None, None),
])  # fmt: skip
def test_untextured_objects_are_for_the_filter(body, textured, keep, plain, refuse):
    facts = {} if textured is None else {"textured": textured}
    small = replace(body, depth_m=None, normal=None)
    expected = {"keep": keep, "plain": plain, "refuse": refuse}
    assert {choice: reason(judge(small, Filters(untextured=choice), facts)) for choice in expected} == expected


def test_condition_views_are_judged_by_exposure_alone(body):
    white = np.where(body.rgba[..., 3:] > 0, np.uint8(255), body.rgba)
    white[3, :, 0] = 255
    condition = replace(body, orbit=replace(body.orbit, name="condition"), rgba=white, depth_m=-body.depth_m)
    verdict = examine((body, condition), TEXTURED, Filters(cropped="refuse"))
    assert (verdict.refusal, verdict.flags) == (None, ("over-exposed",))
    assert verdict.quality["condition"]["depth"] is None
