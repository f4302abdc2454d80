"""The rate follows the last objects, and the share inside Cycles is that of the slots' time."""

import pytest

from render_farm.run.progress import WINDOW_OBJECTS, WINDOW_S, Rate, Summary


def test_there_is_no_rate_before_the_first_object():
    assert Rate(begun=0.0).per_h(100.0) == 0.0


def test_a_steady_farm_has_its_rate_from_the_first_object_on():
    rate = Rate(begun=0.0)
    for second in range(1, 1000):
        rate.count(10.0 * second)
        assert rate.per_h(10.0 * second) == pytest.approx(360.0)


def test_a_farm_that_grows_slower_is_seen_within_the_window():
    rate = Rate(begun=0.0)
    for index in range(WINDOW_OBJECTS):
        rate.count(index + 1.0)
    assert rate.per_h(float(WINDOW_OBJECTS)) == pytest.approx(3600.0)
    now = float(WINDOW_OBJECTS)
    while now < WINDOW_OBJECTS + WINDOW_S + 60:
        now += 60.0
        rate.count(now)
    assert rate.per_h(now) == pytest.approx(60.0)


def test_objects_long_ago_count_no_more():
    rate = Rate(begun=0.0)
    rate.count(1.0)
    assert rate.per_h(2.0) == pytest.approx(1800.0)
    assert rate.per_h(WINDOW_S + 2.0) == 0.0


def test_the_share_inside_cycles():
    summary = Summary(1, 0, 1, 1, 1, {}, 1, (), 10.0, 20.0, 18.0, 0.5, 0.5, stopped=False)
    assert summary.render_share == pytest.approx(0.9)
