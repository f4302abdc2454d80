"""The ground: a slab of sea, the rock with its terrace and carved steps, loose boulders and bushes (metres)."""

import numpy as np

from render_farm.worker.example.solids import Part, Point, Solid, boulder, box, icosphere, loft, pose

SEA_LEVEL = 0.45
SEA_RADIUS = 4.7
TERRACE = 2.0
"""Height of the rock's level top: the foot of the tower and of the cottage."""
STEP_RISE, STEP_RUN = 0.2, 0.34
STEPS_FOOT: Point = (1.05, -3.05, 1.0)
"""Middle of the jetty's landward end, at the height of its deck."""
STEPS_TURN_DEG = -7.0
BOULDERS: tuple[tuple[float, float, float, float], ...] = (
    # (azimuth in degrees from the front, distance, radius, height above the floor)
    (-4.0, 2.55, 0.8, 1.3),
    (-24.0, 3.0, 0.85, 1.5),
    (-52.0, 3.15, 1.05, 1.7),
    (-88.0, 3.2, 0.95, 1.45),
    (-112.0, 3.75, 0.5, 0.85),
    (-135.0, 3.0, 1.15, 1.95),
    (-172.0, 2.95, 0.95, 1.5),
    (158.0, 3.55, 0.6, 0.95),
    (140.0, 2.95, 1.1, 1.75),
    (102.0, 3.1, 1.0, 1.5),
    (70.0, 3.3, 0.9, 1.3),
    (48.0, 3.1, 0.85, 1.2),
    (86.0, 4.05, 0.42, 0.72),
    (-66.0, 4.1, 0.4, 0.74),
)
BUSHES: tuple[tuple[float, float, float, float], ...] = (
    # (x, y, height of the middle, radius)
    (2.5, 1.1, 2.05, 0.42),
    (2.15, 1.5, 2.1, 0.34),
    (-2.35, 0.75, 2.1, 0.4),
    (-0.15, 2.35, 2.1, 0.46),
    (0.45, 2.25, 2.02, 0.34),
    (-2.0, -1.3, 1.9, 0.32),
    (-0.35, -2.2, 1.6, 0.3),
    (1.95, -1.35, 1.95, 0.34),
)


def islet(rng: np.random.Generator) -> tuple[Part, ...]:
    """Return everything that the buildings stand on."""
    return sea(), rocks(rng), steps(), bushes(rng)


def sea() -> Part:
    """Return a pebble-shaped slab of water with a flat bottom, a rounded rim and a gentle swell."""
    angles = np.arange(72) * (2 * np.pi / 72)
    outline = SEA_RADIUS * (1 + 0.03 * np.cos(2 * angles + 0.7) + 0.018 * np.cos(3 * angles - 1.1))
    rim = [(0.94, 0.0), (0.985, 0.05), (1.0, 0.16), (0.995, 0.3), (0.975, 0.4)]
    waves = [(share, SEA_LEVEL) for share in (0.95, 0.9, 0.84, 0.78, 0.72, 0.66, 0.6, 0.3)]
    rings = []
    for share, z in rim + waves:
        x, y = share * outline * np.cos(angles), share * outline * np.sin(angles)
        swell = 0.035 * np.sin(9.0 * share * SEA_RADIUS / 2 + 2 * np.sin(3 * angles)) if z == SEA_LEVEL else 0.0
        rings.append(np.stack([x, y, np.broadcast_to(z + swell, x.shape)], axis=1))
    rings[-1][:, 2] = SEA_LEVEL  # hidden under the rock: level, so that its cap is planar
    return Part("sea", (loft(np.stack(rings), "sea"),))


def rocks(rng: np.random.Generator) -> Part:
    """Return the islet's rock and its boulders, cut off inside the sea slab, with the stairway carved out."""
    mound = boulder((3.6, 3.25, 2.5), "rock", rng, subdivisions=4, facets=22, sharpness=20.0, flat_top=TERRACE / 2.5)
    stones = [mound]
    for azimuth_deg, distance, radius, height in BOULDERS:
        azimuth = np.radians(azimuth_deg)
        subdivisions = 3 if radius > 0.7 else 2
        stone = boulder((radius, radius * rng.uniform(0.8, 1.0), height), "rock", rng, subdivisions=subdivisions)
        place = (distance * float(np.sin(azimuth)), -distance * float(np.cos(azimuth)), 0.0)
        stones.append(stone.moved(pose(place, turn_deg=azimuth_deg)))
    below = box((14.0, 14.0, 6.0), "rock", at=(0.0, 0.0, 0.1 - 3.0))
    headroom = [
        box((1.16, STEP_RUN * 1.5, 3.0), "rock", at=(0.0, STEP_RUN * (k + 0.25), STEP_RISE * (k + 1) + 1.45))
        for k in range(-3, 6)
    ]
    stairway = pose(STEPS_FOOT, STEPS_TURN_DEG)
    return Part("rocks", tuple(stones), (below, *(h.moved(stairway) for h in headroom)))


def steps() -> Part:
    """Return the stone steps from the jetty up to the terrace; each reaches down into the rock."""
    treads = [
        box((1.02 + 0.05 * (-1) ** k, STEP_RUN + 0.12, 1.0), "stone", at=(0.0, STEP_RUN * k, STEP_RISE * (k + 1) - 0.5))
        for k in range(5)
    ]
    return Part("steps", tuple(t.moved(pose(STEPS_FOOT, STEPS_TURN_DEG)) for t in treads))


def bushes(rng: np.random.Generator) -> Part:
    """Return round, lumpy bushes that break the terrace's edge."""
    return Part("bushes", tuple(_bush(rng, radius).moved(pose((x, y, z))) for x, y, z, radius in BUSHES))


def _bush(rng: np.random.Generator, radius: float) -> Solid:
    """Return a sphere swollen towards a dozen random directions."""
    directions, faces = icosphere(2)
    lobes = rng.normal(size=(14, 3))
    lobes /= np.linalg.norm(lobes, axis=1, keepdims=True)
    swelling = np.exp(7.0 * (directions @ lobes.T - 1)).max(axis=1)
    vertices = radius * directions * (0.84 + 0.24 * swelling)[:, None]
    return Solid(vertices, tuple(map(tuple, faces.tolist())), "leaves")
