"""Closed building blocks as plain arrays: box, lathe, prism, loft, ring, rod and boulder.

Every shape is made in its own local frame (metres, +Z up, front at -Y) and carried with the pose that puts it into the
world, since the painter works in the local frame: there, a plank runs along x and a tower's courses go round z.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Solid:
    """A closed, outward-facing polygon mesh and the name of its paint."""

    vertices: Float[np.ndarray, "v 3"]
    """Local frame, metres."""
    faces: tuple[tuple[int, ...], ...]
    """Polygons, counter-clockwise seen from outside."""
    paint: str
    """Key of paint.PAINTS."""
    T_world_local: Float[np.ndarray, "4 4"] = field(default_factory=lambda: np.eye(4))
    """Pose of the local frame, metres."""

    def moved(self, T_parent_world: Float[np.ndarray, "4 4"]) -> "Solid":
        """Return the solid with the pose applied on top of its own."""
        return replace(self, T_world_local=T_parent_world @ self.T_world_local)

    @property
    def world_vertices(self) -> Float[np.ndarray, "v 3"]:
        """Vertices in the world, metres."""
        return self.vertices @ self.T_world_local[:3, :3].T + self.T_world_local[:3, 3]


@dataclass(frozen=True)
class Part:
    """A part of the object: (all of ``add``, less all of ``cut``), with ``fill`` set into what was cut."""

    name: str
    add: tuple[Solid, ...]
    cut: tuple[Solid, ...] = ()
    fill: tuple[Solid, ...] = ()

    def moved(self, T_parent_world: Float[np.ndarray, "4 4"]) -> "Part":
        """Return the part with the pose applied to every solid."""
        add, cut, fill = (tuple(s.moved(T_parent_world) for s in group) for group in (self.add, self.cut, self.fill))
        return Part(self.name, add, cut, fill)


def pose(at: Point = (0.0, 0.0, 0.0), turn_deg: float = 0.0, tilt_deg: float = 0.0) -> Float[np.ndarray, "4 4"]:
    """Return a pose: tilt about local x first, then turn about +Z (counter-clockwise from above), then move."""
    turn, tilt = np.radians(turn_deg), np.radians(tilt_deg)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    T = np.eye(4)
    T[:3, :3] = about_z @ about_x
    T[:3, 3] = at
    return T


def box(size: Point, paint: str, *, at: Point = (0.0, 0.0, 0.0), turn_deg: float = 0.0, tilt_deg: float = 0.0) -> Solid:
    """Return a box centred on its local origin."""
    half_x, half_y, half_z = (s / 2 for s in size)
    outline = [(-half_x, -half_z), (half_x, -half_z), (half_x, half_z), (-half_x, half_z)]
    return prism(outline, (-half_y, half_y), paint).moved(pose(at, turn_deg, tilt_deg))


def prism(outline: Sequence[tuple[float, float]], y_range: tuple[float, float], paint: str) -> Solid:
    """Return a simple outline of (x, z) points, counter-clockwise seen from the front, swept along y."""
    n = len(outline)
    vertices = np.array([(x, y, z) for y in y_range for x, z in outline], dtype=np.float64)
    sides = [(i, i + n, (i + 1) % n + n, (i + 1) % n) for i in range(n)]
    return Solid(vertices, (tuple(range(n)), tuple(range(2 * n - 1, n - 1, -1)), *sides), paint)


def arch(width: float, height: float, y_range: tuple[float, float], paint: str, *, segments: int = 10) -> Solid:
    """Return a round-topped prism standing on z = 0: a door, a window, or the hole for one."""
    radius = width / 2
    angles = np.linspace(0, np.pi, segments + 1)
    crown = [(radius * np.cos(a), height - radius + radius * np.sin(a)) for a in angles]
    return prism([(-radius, 0.0), (radius, 0.0), *crown], y_range, paint)


def loft(rings: Float[np.ndarray, "r s 3"], paint: str) -> Solid:
    """Join rings, each counter-clockwise seen from above and listed from the bottom up, and cap both ends."""
    count, around, _ = rings.shape
    quads = [
        (k * around + i, k * around + (i + 1) % around, (k + 1) * around + (i + 1) % around, (k + 1) * around + i)
        for k in range(count - 1)
        for i in range(around)
    ]
    bottom = tuple(range(around - 1, -1, -1))
    top = tuple(range((count - 1) * around, count * around))
    return Solid(rings.reshape(-1, 3), (bottom, *quads, top), paint)


def lathe(profile: Sequence[tuple[float, float]], paint: str, *, segments: int = 32, at: Point = (0, 0, 0)) -> Solid:
    """Turn a profile of (radius, z), from the bottom up, about local z; radii must be above zero."""
    angles = np.arange(segments) * (2 * np.pi / segments)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(segments)], axis=1)
    rings = np.stack([radius * circle + [0, 0, z] for radius, z in profile])
    return loft(rings, paint).moved(pose(at))


def ring(radius: float, tube: float, paint: str, *, segments: int = 48, sides: int = 8, at: Point = (0, 0, 0)) -> Solid:
    """Return a torus about local z: a handrail."""
    around, across = np.arange(segments) * (2 * np.pi / segments), np.arange(sides) * (2 * np.pi / sides)
    distance = radius + tube * np.cos(across)  # [sides]
    vertices = np.stack(
        [
            np.cos(around)[:, None] * distance,
            np.sin(around)[:, None] * distance,
            np.broadcast_to(tube * np.sin(across), (segments, sides)),
        ],
        axis=-1,
    ).reshape(-1, 3)
    faces = tuple(
        (
            i * sides + j,
            (i + 1) % segments * sides + j,
            (i + 1) % segments * sides + (j + 1) % sides,
            i * sides + (j + 1) % sides,
        )
        for i in range(segments)
        for j in range(sides)
    )
    return Solid(vertices, faces, paint).moved(pose(at))


def rod(start: Point, end: Point, radius: float, paint: str, *, segments: int = 10) -> Solid:
    """Return a round bar between two points; its local z runs from the first to the second."""
    a, b = np.array(start, dtype=np.float64), np.array(end, dtype=np.float64)
    length = float(np.linalg.norm(b - a))
    z = (b - a) / length
    x = np.cross([0, 1, 0] if abs(z[1]) < 0.9 else [1, 0, 0], z)
    x /= np.linalg.norm(x)
    T = np.eye(4)
    T[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
    T[:3, 3] = a
    return lathe([(radius, 0.0), (radius, length)], paint, segments=segments).moved(T)


def icosphere(subdivisions: int) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Return a unit sphere of nearly equal triangles: 20 * 4 ** subdivisions of them."""
    golden = (1 + 5**0.5) / 2
    corners = [(-1, golden, 0), (1, golden, 0), (-1, -golden, 0), (1, -golden, 0)]
    points = [np.roll(c, k) for k in range(3) for c in corners]
    sphere = [p / np.linalg.norm(p) for p in points]
    faces = _hull_of_icosahedron(np.array(sphere))
    for _ in range(subdivisions):
        faces = _split_triangles(sphere, faces)
    return np.array(sphere), np.array(faces)


def _hull_of_icosahedron(points: Float[np.ndarray, "12 3"]) -> list[tuple[int, int, int]]:
    """Return the 20 outward triangles: the triples whose three sides are all the shortest distance."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = np.isclose(distance, distance[distance > 0].min())
    triples = [
        (i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]
    ]
    outward = [float(np.linalg.det(points[list(t)])) > 0 for t in triples]
    return [t if out else (t[0], t[2], t[1]) for t, out in zip(triples, outward, strict=True)]


def _split_triangles(
    sphere: list[Float[np.ndarray, "3"]], faces: list[tuple[int, int, int]]
) -> list[tuple[int, int, int]]:
    """Split each triangle into four, appending the new points to ``sphere``."""
    middles: dict[tuple[int, int], int] = {}

    def middle(i: int, j: int) -> int:
        key = (min(i, j), max(i, j))
        if key not in middles:
            point = sphere[i] + sphere[j]
            sphere.append(point / np.linalg.norm(point))
            middles[key] = len(sphere) - 1
        return middles[key]

    split = []
    for a, b, c in faces:
        ab, bc, ca = middle(a, b), middle(b, c), middle(c, a)
        split += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
    return split


def boulder(
    radii: Point,
    paint: str,
    rng: np.random.Generator,
    *,
    subdivisions: int = 3,
    facets: int = 14,
    sharpness: float = 16.0,
    flat_top: float | None = None,
) -> Solid:
    """Return a chiselled stone: the star-shaped surface inside random planes, with softened edges.

    The radius along d is ``sum_i (max(d . n_i, 0) / h_i) ** k) ** (-1 / k)``: as k grows, the polytope itself.
    ``flat_top`` adds a level plane at this fraction of the height.
    """
    directions, faces = icosphere(subdivisions)
    # Directions spread evenly by the golden angle, then shaken: purely random ones leave long spikes.
    k = np.arange(facets) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / facets), k * np.pi * (3 - 5**0.5) + rng.uniform(0, 2 * np.pi)
    normals = np.stack([np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)], axis=1)
    normals += rng.normal(0, 0.16, normals.shape)
    heights = rng.uniform(0.78, 1.0, facets)
    if flat_top is not None:
        keep = normals[:, 2] < 0.75
        normals, heights = np.vstack([normals[keep], [0, 0, 1]]), np.append(heights[keep], flat_top)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    reach = np.maximum(directions @ normals.T, 0) / heights  # [v, facets]
    radius = (reach**sharpness).sum(axis=1) ** (-1 / sharpness)
    vertices = directions * radius[:, None] * np.array(radii)
    return Solid(vertices, tuple(map(tuple, faces.tolist())), paint)
