"""A lopsided solid (three boxes, one of them turned, and a ball) ray cast by numpy: exact depth and normals."""

import numpy as np

from engine.files import OrbitImages
from engine.geometry import Orbit, rays_world, rotation_about

BOXES = (  # lowest corner, highest corner, turn about +Z in degrees, colour
    ((-0.45, -0.25, -0.4), (0.3, 0.2, -0.2), 0.0, (200, 60, 40)),
    ((0.0, -0.2, -0.2), (0.25, 0.05, 0.4), 20.0, (40, 160, 60)),
    ((-0.4, -0.05, -0.2), (-0.3, 0.35, 0.15), -10.0, (50, 70, 190)),
)
BALL = ((-0.15, -0.1, -0.05), 0.15, (220, 200, 60))


def body_images(orbit: Orbit, uid: str = "body") -> OrbitImages:
    """All views of the solid, without antialiasing."""
    views = [_view(camera) for camera in orbit.cameras]
    depth, normal, rgba = (np.stack(parts) for parts in zip(*views, strict=True))
    return OrbitImages(uid=uid, orbit=orbit, rgba=rgba, depth_m=depth, normal=normal)


def ball_depth(orbit: Orbit, radius_m: float) -> np.ndarray:
    """Depth of a ball around the origin."""
    return np.stack([_planar(camera, *_hit_ball(camera, (0, 0, 0), radius_m)[:1]) for camera in orbit.cameras])


def box_depth(orbit: Orbit, half_m: float) -> np.ndarray:
    """Depth of a cube around the origin."""
    low, high = (-half_m,) * 3, (half_m,) * 3
    return np.stack([_planar(camera, _hit_box(camera, low, high, 0.0)[0]) for camera in orbit.cameras])


def card_depth(orbit: Orbit) -> np.ndarray:
    """Depth of a square without thickness that faces the front."""
    views = []
    for camera in orbit.cameras:
        origin, directions = rays_world(camera)
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = -origin[1] / directions[..., 1]
            points = origin + distance[..., None] * directions
        hit = (np.abs(points[..., [0, 2]]) <= 0.5).all(-1) & (np.abs(directions[..., 1]) > 1e-9)
        views.append(_planar(camera, np.where(hit, distance, np.inf)))
    return np.stack(views)


def _view(camera):
    hits = [_hit_box(camera, *box[:3]) for box in BOXES] + [_hit_ball(camera, *BALL[:2])]
    distance = np.stack([hit[0] for hit in hits])
    nearest = distance.argmin(0)
    there = np.isfinite(distance.min(0))
    normal = np.take_along_axis(np.stack([hit[1] for hit in hits]), nearest[None, ..., None], 0)[0]
    colours = np.array([*(box[3] for box in BOXES), BALL[2]], np.uint8)[nearest]
    rgba = np.concatenate([colours, np.full_like(colours[..., :1], 255)], -1) * there[..., None]
    depth = _planar(camera, distance.min(0))
    return depth, np.where(there[..., None], normal, 0).astype(np.float32), rgba.astype(np.uint8)


def _planar(camera, distance):
    _, directions = rays_world(camera)
    along = directions @ camera.T_world_camera[:3, 2]
    return np.where(np.isfinite(distance), np.where(np.isfinite(distance), distance, 0) * along, 0).astype(np.float32)


def _hit_box(camera, low, high, turn_deg):
    centre = (np.array(low) + high) / 2
    turn = rotation_about("z", turn_deg)
    origin, directions = rays_world(camera)
    local, start = directions @ turn, (origin - centre) @ turn  # R^T d
    half = (np.array(high) - low) / 2
    with np.errstate(divide="ignore"):
        one, other = (-half - start) / local, (half - start) / local
    enter, leave = np.minimum(one, other), np.maximum(one, other)
    axis = enter.argmax(-1)
    first = enter.max(-1)
    hit = (first <= leave.min(-1)) & (first > 0)
    normal = -np.sign(np.take_along_axis(local, axis[..., None], -1)) * np.eye(3)[axis]
    return np.where(hit, first, np.inf), normal @ turn.T


def _hit_ball(camera, centre, radius_m):
    origin, directions = rays_world(camera)
    offset = origin - np.array(centre)
    along = -(directions @ offset)
    inside = radius_m**2 - (offset @ offset - along**2)
    distance = np.where(inside > 0, along - np.sqrt(np.maximum(inside, 0)), np.inf)
    points = offset + np.where(inside > 0, distance, 0)[..., None] * directions
    return distance, points / radius_m
