"""Camera layouts: a seed and a `CameraSpec` in, orbits out. Pure numpy, outside Blender.

ring24, ring16  one ring at one elevation          -> 1 orbit, named after the layout
hi3d            six rings of 16                     -> 6 orbits: hi3d_m10, hi3d_00, hi3d_10, ... hi3d_40
hammersley      a low-discrepancy sphere            -> 1 orbit, hammersley
random          independent views                   -> 1 orbit, random
custom          places given by the user            -> 1 orbit, custom
"""

from dataclasses import dataclass, replace

import numpy as np

from engine.geometry import RING16, RING24, Orbit, Ring
from render_farm.lights import Light, draw_light
from render_farm.spec import CameraSpec, RenderSpec

HI3D_ELEVATIONS_DEG = (-10.0, 0.0, 10.0, 20.0, 30.0, 40.0)
"""The six rings that Hi3D's released training code reads (its section 4.1 says only: 16 views each)."""
SPHERE = Ring("hammersley", 32, 40.0, 2.0, (-90.0, 90.0))
"""Field of view and distance of TRELLIS' Hammersley views."""
RANDOM = replace(SPHERE, name="random", elevation_range_deg=(-30.0, 60.0))
DEFAULTS = {
    "ring24": RING24,
    "ring16": RING16,
    "hi3d": RING16,
    "hammersley": SPHERE,
    "random": RANDOM,
    "custom": SPHERE,
}
UNIT_SPHERE_M = 3**0.5 / 2
"""Radius around the origin of any object whose longest side is 1 and whose box is centred."""
ELEVATION_STREAM, AZIMUTH_STREAM, VIEW_STREAM, LIGHT_STREAM, CONDITION_STREAM = range(5)
"""What is drawn has a stream of its own, so that a change of one never moves another."""


@dataclass(frozen=True)
class PlannedOrbit:
    """One orbit of one object, before it is rendered."""

    orbit: Orbit
    """Its cameras."""
    light: Light
    """Its light, the same for all views."""


def plan_orbits(seed: int, spec: RenderSpec) -> tuple[PlannedOrbit, ...]:
    """Return every orbit of one object, targets first. Names are unique."""
    light = draw_light(_generator(seed, LIGHT_STREAM), spec.light)
    planned = [PlannedOrbit(orbit, light) for orbit in orbits(seed, spec.cameras, spec.width, spec.height)]
    if spec.condition is not None:
        other = int(_generator(seed, CONDITION_STREAM).integers(2**62))
        light = draw_light(_generator(other, LIGHT_STREAM), spec.condition.light)
        found = orbits(other, spec.condition.cameras, spec.width, spec.height)
        names = ["condition"] if len(found) == 1 else [f"condition_{index}" for index in range(len(found))]
        planned += [PlannedOrbit(replace(orbit, name=name), light) for orbit, name in zip(found, names, strict=True)]
    return tuple(planned)


def orbits(seed: int, cameras: CameraSpec, width: int, height: int) -> tuple[Orbit, ...]:
    """Return the orbits of a layout for pictures of width x height pixels."""
    ring = _ring(cameras, width, height)
    first_deg = _first_azimuth_deg(seed, cameras)
    if cameras.layout == "custom":
        azimuth, elevation, distance = np.array(cameras.places, float).T
        if cameras.fit == "sphere":
            distance = np.full(len(azimuth), ring.distance_m)
        return (Orbit.around_origin("custom", azimuth, elevation, distance, ring.fov_deg, width, height),)
    if cameras.layout == "hammersley":
        return (_at(ring, *_hammersley(ring.views, first_deg), width, height),)
    if cameras.layout == "random":
        rng = _generator(seed, VIEW_STREAM)
        azimuth = rng.uniform(0.0, 360.0, ring.views)
        return (_at(ring, azimuth, rng.uniform(*ring.elevation_range_deg, ring.views), width, height),)
    azimuth = (first_deg + np.arange(ring.views) * 360.0 / ring.views) % 360.0
    if cameras.layout == "hi3d":
        return tuple(
            _at(replace(ring, name=f"hi3d_{_label(e)}"), azimuth, np.full(ring.views, e), width, height)
            for e in HI3D_ELEVATIONS_DEG
        )
    elevation_deg = cameras.elevation_deg
    if elevation_deg is None:
        elevation_deg = ring.draw_elevation_deg(_generator(seed, ELEVATION_STREAM))
    return (_at(ring, azimuth, np.full(ring.views, elevation_deg), width, height),)


def fit_distance_m(fov_deg: float, width: int, height: int) -> float:
    """Return the distance at which the sphere around the unit box touches the picture's nearer edges.

    r = R / sin(fov / 2), with the smaller of the two fields of view; `fov_deg` is the vertical one.
    """
    half = np.radians(fov_deg) / 2
    narrow = min(half, float(np.arctan(np.tan(half) * width / height)))
    return float(UNIT_SPHERE_M / np.sin(narrow))


def _ring(cameras: CameraSpec, width: int, height: int) -> Ring:
    """The layout's defaults with the spec's own numbers."""
    ring = DEFAULTS[cameras.layout]
    fov_deg = cameras.fov_deg or ring.fov_deg
    distance_m = cameras.distance_m or ring.distance_m
    if cameras.fit == "sphere":
        distance_m = fit_distance_m(fov_deg, width, height)
    return Ring(
        cameras.layout, cameras.views or ring.views, fov_deg, distance_m,
        cameras.elevation_range_deg or ring.elevation_range_deg,
    )  # fmt: skip


def _at(ring: Ring, azimuth: np.ndarray, elevation: np.ndarray, width: int, height: int) -> Orbit:
    distance = np.full(len(azimuth), ring.distance_m)
    return Orbit.around_origin(ring.name, azimuth, elevation, distance, ring.fov_deg, width, height)


def _first_azimuth_deg(seed: int, cameras: CameraSpec) -> float:
    if cameras.start == "front":
        return 0.0
    return float(_generator(seed, AZIMUTH_STREAM).uniform(0.0, 360.0))


def _hammersley(count: int, first_deg: float) -> tuple[np.ndarray, np.ndarray]:
    """Azimuths and elevations of `count` points of equal share of the sphere (base-2 radical inverse)."""
    index = np.arange(count, dtype=np.uint64)
    inverse, share = np.zeros(count), 0.5
    while index.any():
        inverse += share * (index & np.uint64(1))
        index >>= np.uint64(1)
        share /= 2
    heights = 1 - (2 * np.arange(count) + 1) / count
    return (first_deg + 360.0 * inverse) % 360.0, np.degrees(np.arcsin(heights))


def _label(elevation_deg: float) -> str:
    return f"{'m' if elevation_deg < 0 else ''}{abs(round(elevation_deg)):02d}"


def _generator(seed: int, stream: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, stream]))
