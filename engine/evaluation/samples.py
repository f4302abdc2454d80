"""The stored orbits that are evaluated on: shards in, those orbits out that the preset's weights would make."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from engine.errors import EvaluationError, named
from engine.files import OrbitImages, iter_shard
from engine.geometry import Orbit
from engine.multiview.orbits import KnownViews, OrbitRequest, orbit_for
from engine.multiview.resampling import resample
from engine.training.data.sources import find_shards

FOV_TOLERANCE_DEG = 0.1
"""Stored focal lengths are rounded; 39.6 and 49.13 degrees are the kinds that have to be told apart."""
POSE_TOLERANCE = 1e-3
"""Of the entries of camera poses (metres and cosines): stored ones are rounded to six digits."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OrbitKind:
    """What weights make: only stored orbits of the same kind can be compared with it."""

    known: KnownViews
    """Numbers of views, field of view."""

    def request(self, orbit: Orbit) -> OrbitRequest:
        """Return the request that makes a stored orbit's cameras, where it is a ring."""
        return OrbitRequest(
            len(orbit), float(orbit.elevation_deg[0]), float(orbit.distance_m[0]), float(orbit.azimuth_deg[0]),
            beyond_training=True,
        )  # fmt: skip

    def misfit(self, orbit: Orbit) -> str | None:
        """Return in words why an orbit is of another kind; None if it is of this one."""
        if len(orbit) not in self.known.counts or abs(orbit.fov_deg - self.known.fov_deg) > FOV_TOLERANCE_DEG:
            return f"{orbit.name}: {len(orbit)} views, {orbit.fov_deg:.4g} degrees wide"
        if orbit.width != orbit.height:
            return f"{orbit.name}: {orbit.width} x {orbit.height} pixels, not square"
        asked = orbit_for(self.request(orbit), self.known, orbit.width)
        if not np.allclose(asked.T_world_camera, orbit.T_world_camera, atol=POSE_TOLERANCE):
            return f"{orbit.name}: not one even circle counter-clockwise around the origin"
        return None

    def __str__(self) -> str:
        return f"{' or '.join(map(str, self.known.counts))} views, {self.known.fov_deg:.4g} degrees wide"


def read_samples(patterns: Sequence[str], kind: OrbitKind, *, limit: int | None = None) -> list[OrbitImages]:
    """Return the orbits of a kind that shards hold, in stored order, colours alone; they are held in memory all at once.

    Args:
        patterns: see `engine.training.data.sources`.
        kind: what is taken; samples of other kinds are passed over.
        limit: how many at most.

    Raises:
        TrainingError: no shard is there.
        EvaluationError: they hold no sample, or none of the kind.
        OrbitError: a broken shard.
    """
    found: dict[str, OrbitImages] = {}
    others: dict[str, int] = {}
    for images in _each(find_shards(patterns).urls, strict=True):
        if limit is not None and len(found) >= limit:
            break
        misfit = kind.misfit(images.orbit)
        if misfit is not None:
            others[misfit] = others.get(misfit, 0) + 1
        elif images.uid in found:
            log.warning("%s: stored more than once; the first one is taken", images.uid)
        else:
            found[images.uid] = images
    if not found:
        _refuse(patterns, kind, others)
    if others:
        log.info("passed over: %s", "; ".join(f"{count} of {words}" for words, count in others.items()))
    return list(found.values())


def each_sample(patterns: Sequence[str], kind: OrbitKind) -> Iterator[OrbitImages]:
    """Yield the orbits of a kind, colours alone; bad samples are skipped with a warning. Raises TrainingError if no shard is there."""
    for images in _each(find_shards(patterns).urls, strict=False):
        if kind.misfit(images.orbit) is None:
            yield images


def check_captions(samples: Collection[OrbitImages], preset: str) -> None:
    """Raise EvaluationError, naming them, if samples have no caption, which a preset of sentences is told."""
    silent = [images.uid for images in samples if not images.caption.strip()]
    if silent:
        raise EvaluationError(
            f"--preset {preset} starts from sentences, and {len(silent)} of {len(samples)} orbits have no caption: "
            f"{named(silent)}; render them with captions, or take --source picture where the preset has it"
        )


def at_size(rgba: UInt8[np.ndarray, "n h w 4"], size_px: int) -> UInt8[np.ndarray, "n s s 4"]:
    """Return views at another size: averaged down, or enlarged, alpha respected; the same ones if they have it."""
    height, width = rgba.shape[1:3]
    if (height, width) == (size_px, size_px):
        return rgba
    box = (0.0, 0.0, float(width), float(height))
    return np.stack([resample(view, box, width=size_px, height=size_px) for view in rgba])


def resized(images: OrbitImages, size_px: int) -> OrbitImages:
    """Return a sample's views and cameras at another size, colours alone."""
    return replace(_colours(images), orbit=images.orbit.resized(size_px, size_px), rgba=at_size(images.rgba, size_px))


def _each(shards: Sequence[str], *, strict: bool) -> Iterator[OrbitImages]:
    for shard in shards:
        for images in iter_shard(shard, strict=strict):
            yield _colours(images)


def _colours(images: OrbitImages) -> OrbitImages:
    return replace(images, depth_m=None, normal=None, albedo=None, camera_normal=None, material=None)


def _refuse(patterns: Sequence[str], kind: OrbitKind, others: dict[str, int]) -> None:
    where = " ".join(patterns)
    if not others:
        raise EvaluationError(f"{where}: holds no orbit; render some with `turntable-farm`")
    held = "; ".join(f"{count} of {words}" for words, count in others.items())
    raise EvaluationError(
        f"{where}: holds no orbit of {kind}, which is what these weights make, but {held}; "
        "give shards of the preset's orbit, or take the preset that makes these"
    )
