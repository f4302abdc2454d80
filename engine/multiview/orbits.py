"""Which orbits weights know, and the orbit that a user asks for."""

from dataclasses import dataclass

import numpy as np

from engine.errors import TurntableError
from engine.geometry import Orbit


@dataclass(frozen=True)
class KnownViews:
    """What the weights were trained on: outside of it they guess."""

    counts: tuple[int, ...] = (24,)
    """Numbers of views, evenly spaced on the full circle; the first is the default."""
    fov_deg: float = 39.6
    """Vertical field of view in degrees."""
    distance_m: float = 2.0
    """Default distance from the origin, metres; the object's longest side is 1."""
    distance_range_m: tuple[float, float] = (2.0, 2.0)
    """Distances seen in training."""
    elevation_deg: float = 15.0
    """Default elevation in degrees above the horizon."""
    elevation_range_deg: tuple[float, float] = (5.0, 30.0)
    """Elevations seen in training."""


@dataclass(frozen=True)
class OrbitRequest:
    """The orbit that is asked for; None takes the weights' default."""

    views: int | None = None
    """Number of views on the full circle."""
    elevation_deg: float | None = None
    """Degrees above the horizon: the cameras', and with a picture the one from which it was taken."""
    distance_m: float | None = None
    """Distance from the origin in metres; the object's longest side is 1."""
    start_azimuth_deg: float = 0.0
    """Azimuth of the first view (with a picture: of the picture), degrees."""
    beyond_training: bool = False
    """Allow what the weights never saw."""


def orbit_for(request: OrbitRequest, known: KnownViews, size_px: int) -> Orbit:
    """Return the cameras of a request.

    Raises TurntableError, naming the range, for views, an elevation or a distance that the weights do not know.
    """
    views = known.counts[0] if request.views is None else request.views
    elevation_deg = known.elevation_deg if request.elevation_deg is None else request.elevation_deg
    distance_m = known.distance_m if request.distance_m is None else request.distance_m
    if not -90 < elevation_deg < 90:
        raise TurntableError(f"--elevation-deg must lie between -90 and 90, got {elevation_deg:g}")
    if views < 2 or not distance_m > 0.87:  # half the diagonal of the unit cube: the camera would stand in the object
        what = (
            f"--views must be at least 2, got {views}"
            if views < 2
            else f"--distance-m must be above 0.87, got {distance_m:g}"
        )
        raise TurntableError(what)
    if not request.beyond_training:
        _check(views, elevation_deg, distance_m, known)
    azimuth_deg = (request.start_azimuth_deg + np.arange(views) * 360.0 / views) % 360.0
    same = np.ones(views)
    return Orbit.around_origin(
        f"ring{views}", azimuth_deg, elevation_deg * same, distance_m * same, known.fov_deg, size_px, size_px
    )


def _check(views: int, elevation_deg: float, distance_m: float, known: KnownViews) -> None:
    low, high = known.elevation_range_deg
    near, far = known.distance_range_m
    if views not in known.counts:
        problem = f"--views {views}: these weights know {' or '.join(map(str, known.counts))} views"
    elif not low <= elevation_deg <= high:
        problem = f"--elevation-deg {elevation_deg:g}: these weights know elevations from {low:g} to {high:g}"
    elif not near <= distance_m <= far:
        problem = f"--distance-m {distance_m:g}: these weights know distances from {near:g} to {far:g} m"
    else:
        return
    raise TurntableError(f"{problem}; take one of these, or add --beyond-training and expect less")
