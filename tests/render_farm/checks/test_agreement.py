"""Views that fit together are found to, and every way of being wrong is found out."""

from dataclasses import replace

import numpy as np
import pytest

from engine.geometry import RING24, Orbit, rotation_about
from render_farm.checks.agreement import CLOSED_PX, MIN_SAMPLES, measure_agreement
from render_farm.checks.gaps import choose_partners, find_gaps, view_angles_deg
from render_farm.checks.pictures import lost_views, measure_coverage
from render_farm.checks.verdict import MEDIAN_PX, VIEW_PX
from tests.render_farm.checks.body import ball_depth, body_images, box_depth, card_depth

VIEW = 5


def with_pose(orbit, view, pose):
    poses = orbit.T_world_camera.copy()
    poses[view] = pose
    return replace(orbit, T_world_camera=poses)


def turn(axis, angle_deg=2.0):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_about(axis, angle_deg)
    return matrix


def test_right_views_agree_to_a_hundredth_of_a_pixel(body, large_body):
    for images in (body, large_body):
        found = measure_agreement(images.orbit, images.depth_m)
        # flat faces agree exactly; what is left is the ball's curvature between four pixels
        assert found.median_px < 0.01
        assert found.worst_view_px < CLOSED_PX
        assert found.samples > 24 * MIN_SAMPLES


def test_small_pictures_agree_too():
    images = body_images(RING24.orbit(20.0, 48, 48))
    assert measure_agreement(images.orbit, images.depth_m).median_px < MEDIAN_PX / 4


@pytest.mark.parametrize("views", [4, 8, 16, 24])
@pytest.mark.parametrize("elevation_deg", [0.0, 10.0])
@pytest.mark.parametrize("first_deg", [0.0, 0.5, 2.0])
def test_a_card_may_vanish_where_it_is_seen_from_its_edge(views, elevation_deg, first_deg):
    """Not so the picture beside it."""
    azimuth = first_deg + np.arange(views) * 360.0 / views
    same = np.ones(views)
    orbit = Orbit.around_origin("card", azimuth, elevation_deg * same, 2.6 * same, 40.0, 96, 96)
    depth = card_depth(orbit)
    found = measure_agreement(orbit, depth)
    assert (found.median_px is None) == (views == 4)  # front and back share no surface, the others see none
    assert (found.median_px or 0.0) < CLOSED_PX
    assert (found.worst_view_px or 0.0) < CLOSED_PX
    if views >= 16:
        depth[1] = 0  # 15 to 25 degrees from the front
        assert lost_views(coverage(depth), view_angles_deg(orbit)) == [1]


def coverage(depth):
    return measure_coverage(np.where(depth > 0, 255, 0).astype(np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda pose: turn("z") @ pose, id="azimuth"),
        pytest.param(lambda pose: pose @ turn("y"), id="pan"),
        pytest.param(lambda pose: pose @ turn("x"), id="tilt"),
        pytest.param(lambda pose: pose @ turn("z"), id="roll"),
    ],
)
def test_a_camera_that_is_turned_by_two_degrees_is_found_and_named(large_body, wrong):
    orbit = large_body.orbit
    found = measure_agreement(with_pose(orbit, VIEW, wrong(orbit.T_world_camera[VIEW])), large_body.depth_m)
    assert found.worst_view == VIEW
    assert found.worst_view_px > 2 * VIEW_PX
    assert found.median_px < MEDIAN_PX, "one of 24 views does not move the median: the worst view has to be looked at"


def test_every_other_azimuth_wrong_by_two_degrees_is_more_than_a_pixel(large_body):
    poses = large_body.orbit.T_world_camera.copy()
    poses[1::2] = turn("z") @ poses[1::2]
    assert measure_agreement(replace(large_body.orbit, T_world_camera=poses), large_body.depth_m).median_px > 1.0


@pytest.mark.parametrize("factor", [1.03, 1 / 1.03])
def test_a_focal_length_that_is_wrong_by_three_percent_is_found(large_body, factor):
    orbit = replace(large_body.orbit, focal_px=large_body.orbit.focal_px * factor)
    right = measure_agreement(large_body.orbit, large_body.depth_m)
    wrong = measure_agreement(orbit, large_body.depth_m)
    assert wrong.median_px > MEDIAN_PX
    assert wrong.median_px > 25 * right.median_px


def test_pictures_of_other_views_are_found(body):
    depth = body.depth_m.copy()
    depth[[VIEW, VIEW + 1]] = depth[[VIEW + 1, VIEW]]
    found = measure_agreement(body.orbit, depth)
    assert found.worst_view in (VIEW, VIEW + 1)
    assert found.worst_view_px > 1.0


def test_mirrored_pictures_are_found(body):
    one = body.depth_m.copy()
    one[VIEW] = one[VIEW, :, ::-1]
    found = measure_agreement(body.orbit, one)
    assert found.worst_view == VIEW
    assert found.worst_view_px > 1.0
    assert measure_agreement(body.orbit, body.depth_m[:, :, ::-1].copy()).median_px > 1.0


def test_gaps_are_distances_from_surfaces():
    """One view shows a ball of 0.40 m, the others one of 0.41 m: its points lie 10 mm inside theirs."""
    orbit = RING24.orbit(20.0, 128, 128)
    depth = ball_depth(orbit, 0.41)
    depth[VIEW] = ball_depth(orbit.subset([VIEW]), 0.40)[0]
    gaps = find_gaps(orbit, depth)
    own = gaps.view == VIEW
    assert own.sum() > MIN_SAMPLES
    inward = (gaps.gap_px * gaps.span_m)[own]
    # the plane through four pixels differs from the ball by 2 mm at most where the ground is as steep as allowed
    np.testing.assert_allclose(inward, -0.01, atol=2e-3)
    assert np.median(inward) == pytest.approx(-0.01, abs=2e-4)
    outward = np.einsum("pc,pc->p", gaps.normal[own], gaps.point[own]) / 0.40
    assert outward.min() > 0.95, "normals point out of the ball"


def test_what_maps_the_object_onto_itself_cannot_be_found():
    orbit = RING24.orbit(20.0, 96, 96)
    found = measure_agreement(with_pose(orbit, VIEW, turn("z") @ orbit.T_world_camera[VIEW]), ball_depth(orbit, 0.4))
    assert found.worst_view_px < VIEW_PX


def test_thin_objects_prove_nothing(body):
    thin = np.zeros_like(body.depth_m)
    thin[:, 30:100, 64] = 2.0
    found = measure_agreement(body.orbit, thin)
    assert found.samples < MIN_SAMPLES
    assert (found.median_px, found.p90_px, found.worst_view, found.worst_view_px) == (None, None, None, None)


def test_partners_are_beside_and_across(body):
    angles = view_angles_deg(body.orbit)
    partners = choose_partners(body.orbit)
    held = np.take_along_axis(angles, partners, 1)
    assert partners[:, 0].tolist() == [(i + 1) % 24 for i in range(24)]
    # azimuths in steps of 15 degrees at an elevation of 20 give angles in steps of about 14
    np.testing.assert_allclose(held, [[14.1, 42, 78]] * 24, atol=8)
    assert choose_partners(body.orbit.subset([3])).tolist() == [[-1, -1, -1]]
    assert choose_partners(body.orbit.subset([3, 4])).tolist() == [[1, -1, -1], [0, -1, -1]]


@pytest.mark.parametrize("views", [[4], [0, 12]])
def test_orbits_whose_views_share_nothing_are_not_compared(body, views):
    few = body.subset(views)
    assert measure_agreement(few.orbit, few.depth_m).median_px is None


@pytest.mark.parametrize("views", [4, 5, 6])
def test_a_box_seen_by_few_views_has_no_gaps(views):
    """Its sides are seen by one view each: what is near an edge faces away from the next view, and is no gap in it."""
    orbit = replace(RING24, views=views).orbit(10.0, 128, 128)
    found = measure_agreement(orbit, box_depth(orbit, 0.5))
    assert found.median_px is None or found.median_px < 0.01
    assert found.worst_view_px is None or found.worst_view_px < CLOSED_PX
