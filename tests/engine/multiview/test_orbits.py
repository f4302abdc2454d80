"""Orbits that are asked for, and those that weights know."""

import numpy as np
import pytest

from engine.errors import TurntableError
from engine.geometry import RING24
from engine.multiview.orbits import KnownViews, OrbitRequest, orbit_for

KNOWN = KnownViews((24, 12), 39.6, 2.0, (1.5, 2.5), 15.0, (5.0, 30.0))


def test_nothing_asked_gives_what_the_weights_were_trained_on() -> None:
    made = orbit_for(OrbitRequest(), KNOWN, 256)
    expected = RING24.orbit(15.0, 256, 256)
    np.testing.assert_allclose(made.T_world_camera, expected.T_world_camera, atol=1e-12)
    assert (made.name, made.width, made.height, made.focal_px) == ("ring24", 256, 256, expected.focal_px)


def test_everything_asked_is_given() -> None:
    made = orbit_for(OrbitRequest(12, 20.0, 1.75, 45.0), KNOWN, 64)
    np.testing.assert_allclose(made.azimuth_deg, (45 + 30 * np.arange(12)) % 360)
    assert made.name == "ring12"
    assert set(made.elevation_deg) == {20.0}
    np.testing.assert_allclose(np.linalg.norm(made.T_world_camera[:, :3, 3], axis=-1), 1.75)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (OrbitRequest(views=16), "--views 16: these weights know 24 or 12 views; take one of these, or add --beyond"),
        (OrbitRequest(elevation_deg=45.0), "--elevation-deg 45: these weights know elevations from 5 to 30; take one"),
        (OrbitRequest(distance_m=4.0), "--distance-m 4: these weights know distances from 1.5 to 2.5 m; take one"),
    ],
)
def test_what_the_weights_do_not_know_is_refused_unless_wanted(request_: OrbitRequest, words: str) -> None:
    with pytest.raises(TurntableError) as error:
        orbit_for(request_, KNOWN, 64)
    assert str(error.value).startswith(words)
    beyond = OrbitRequest(request_.views, request_.elevation_deg, request_.distance_m, beyond_training=True)
    assert len(orbit_for(beyond, KNOWN, 64)) == (request_.views or 24)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (OrbitRequest(views=1, beyond_training=True), "--views must be at least 2, got 1"),
        (OrbitRequest(elevation_deg=90.0, beyond_training=True), "--elevation-deg must lie between -90 and 90, got 90"),
        (OrbitRequest(distance_m=0.5, beyond_training=True), "--distance-m must be above 0.87, got 0.5"),
    ],
)
def test_what_cannot_be_is_refused_always(request_: OrbitRequest, words: str) -> None:
    with pytest.raises(TurntableError) as error:
        orbit_for(request_, KNOWN, 64)
    assert str(error.value) == words
