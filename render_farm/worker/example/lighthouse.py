"""The lighthouse itself: tower, gallery, lantern room and roof, standing on z = 0 about the local z axis (metres)."""

import numpy as np

from render_farm.worker.example.solids import Part, Point, Solid, arch, box, lathe, pose, prism, ring, rod

TOWER_HEIGHT = 5.55
FOOT_RADIUS, NECK_RADIUS = 1.5, 1.0
DECK_TOP = TOWER_HEIGHT + 0.2
DECK_RADIUS = 1.62
RAIL_HEIGHT, BAR_RADIUS = 0.92, 0.085
"""Bars 0.17 m thick are 1.4 % of the 12 m height: about two pixels at 256."""
LANTERN_RADIUS, LANTERN_WALL, LANTERN_HEIGHT = 0.86, 0.5, 1.75
EAVES = DECK_TOP + LANTERN_HEIGHT
TOP = 10.0
"""Tip of the weather vane above the tower's foot."""
WINDOWS = ((14.0, 3.35), (-104.0, 1.9), (128.0, 2.75), (-128.0, 3.7), (82.0, 3.72))
"""(azimuth in degrees from the front, height of the sill)."""


def lighthouse() -> tuple[Part, ...]:
    """Return the whole building, from the foot up."""
    return tower(), gallery(), lantern(), roof(), weather_vane()


def tower_radius(z: float) -> float:
    """Return the radius of the shaft at a height: nearly a cone, with a slight sweep at the foot."""
    up = z / TOWER_HEIGHT
    return NECK_RADIUS + (FOOT_RADIUS - NECK_RADIUS) * (0.72 * (1 - up) + 0.28 * (1 - up) ** 3)


def tower() -> Part:
    """Return the striped shaft on a stone plinth, with a recessed door and windows."""
    heights = np.linspace(-0.6, TOWER_HEIGHT - 0.55, 12)
    shaft = [(tower_radius(max(z, 0.0)), float(z)) for z in heights]
    flare = [(1.04, TOWER_HEIGHT - 0.42), (1.16, TOWER_HEIGHT - 0.24), (1.42, TOWER_HEIGHT - 0.04)]
    neck = NECK_RADIUS + 0.09
    band = lathe([(neck, TOWER_HEIGHT - 0.84), (neck, TOWER_HEIGHT - 0.64)], "trim", segments=48)
    plinth = lathe([(1.83, -1.2), (1.8, 0.12), (1.68, 0.2)], "masonry", segments=40)
    openings = [_opening(azimuth, sill, 0.46, 0.82, "window") for azimuth, sill in WINDOWS]
    openings.append(_opening(0.0, 0.2, 0.82, 1.5, "plank_door"))
    frames, holes, panes = zip(*openings, strict=True)
    body = lathe([*shaft, *flare], "stripes", segments=48)
    step = box((1.25, 0.7, 1.0), "stone", at=(0.0, -1.85, -0.36))
    return Part("tower", (body, plinth, band, step, *frames), holes, panes)


def _opening(azimuth_deg: float, sill: float, width: float, height: float, filling: str) -> tuple[Solid, Solid, Solid]:
    """Return the frame, the hole and the filling of an arched opening in the shaft."""
    front = tower_radius(sill + height / 2)
    around = pose(turn_deg=azimuth_deg) @ pose((0.0, 0.0, sill))
    frame = arch(width + 0.3, height + 0.15, (-front - 0.1, -front + 0.4), "trim").moved(pose((0.0, 0.0, -0.08)))
    hole = arch(width, height, (-front - 0.6, -front + 0.3), "trim")
    pane = arch(width + 0.12, height + 0.06, (-front + 0.17, -front + 0.45), filling).moved(pose((0.0, 0.0, -0.03)))
    return frame.moved(around), hole.moved(around), pane.moved(around)


def gallery() -> Part:
    """Return the deck with its railing: posts, a middle rail and a handrail."""
    deck = lathe(
        [(1.5, TOWER_HEIGHT - 0.08), (DECK_RADIUS, TOWER_HEIGHT), (DECK_RADIUS, DECK_TOP - 0.02), (1.58, DECK_TOP)],
        "deck",
        segments=48,
    )
    radius = DECK_RADIUS - 0.14
    posts = [
        rod(_around(radius, a, DECK_TOP - 0.1), _around(radius, a, DECK_TOP + RAIL_HEIGHT + 0.08), BAR_RADIUS, "iron")
        for a in np.arange(12) * 30.0 + 15.0
    ]
    rails = [ring(radius, BAR_RADIUS - 0.004, "iron", at=(0, 0, DECK_TOP + h)) for h in (0.47, RAIL_HEIGHT)]
    return Part("gallery", (deck, *posts, *rails))


def _around(radius: float, azimuth_deg: float, z: float) -> Point:
    """Return a point on a circle about the axis; azimuth 0 is the front."""
    azimuth = np.radians(azimuth_deg)
    return float(radius * np.sin(azimuth)), float(-radius * np.cos(azimuth)), float(z)


def lantern() -> Part:
    """Return the lantern room: a low wall, bars without glass, and the ribbed lens of the lamp."""
    r, wall_top = LANTERN_RADIUS, DECK_TOP + LANTERN_WALL
    wall = lathe([(r, DECK_TOP - 0.05), (r, wall_top)], "trim", segments=40)
    sill = lathe([(r + 0.1, wall_top - 0.04), (r + 0.1, wall_top + 0.1)], "red_trim", segments=40)
    bars = [
        rod(_around(r - 0.07, a, wall_top), _around(r - 0.07, a, EAVES + 0.1), BAR_RADIUS, "red_trim", segments=8)
        for a in np.arange(6) * 60.0 + 30.0
    ]
    z = np.linspace(0.0, 1.0, 15)
    belly = 0.27 + 0.17 * np.sin(np.pi * z) + 0.016 * (np.arange(15) % 2)  # every second ring stands out: a lens
    lens = lathe([(float(b), wall_top + 0.2 + float(t) * 0.82) for b, t in zip(belly, z, strict=True)], "lamp")
    pedestal = lathe([(0.3, wall_top), (0.24, wall_top + 0.3)], "iron", segments=20)
    hanger = lathe([(0.2, wall_top + 0.95), (0.2, EAVES + 0.15)], "iron", segments=20)
    return Part("lantern", (wall, sill, *bars, lens, pedestal, hanger))


def roof() -> Part:
    """Return the ribbed dome over the lantern, with its eaves and ball."""
    angles = np.linspace(0.12, np.pi / 2 - 0.16, 9)
    dome = [(1.02 * float(np.cos(a)), EAVES + 0.12 + 0.86 * float(np.sin(a))) for a in angles]
    shell = lathe([(0.96, EAVES), (1.12, EAVES + 0.05), (1.14, EAVES + 0.2), *dome], "dome", segments=48)
    crown = EAVES + 0.9
    cap = lathe([(0.3, crown), (0.27, crown + 0.2), (0.17, crown + 0.24)], "dome", segments=24)
    latitudes = np.linspace(-np.pi / 2 + 0.1, np.pi / 2 - 0.1, 10)
    ball_at = crown + 0.4
    ball = lathe(
        [(0.215 * float(np.cos(a)), ball_at + 0.215 * float(np.sin(a))) for a in latitudes], "brass", segments=20
    )
    return Part("roof", (shell, cap, ball))


def weather_vane() -> Part:
    """Return the rod on the ball with an arrow that points into the wind."""
    foot, arrow_at = EAVES + 1.3, TOP - 0.62
    shape = [
        *[(-0.78, 0.26), (-0.62, 0.0), (-0.78, -0.26), (-0.42, -0.26), (-0.26, -0.085), (0.3, -0.085)],
        *[(0.3, -0.27), (0.82, 0.0), (0.3, 0.27), (0.3, 0.085), (-0.26, 0.085), (-0.42, 0.26)],
    ]
    arrow = prism(shape, (-0.085, 0.085), "brass").moved(pose((0.0, 0.0, arrow_at), turn_deg=-28.0))
    spindle = rod((0.0, 0.0, foot), (0.0, 0.0, TOP - 0.06), BAR_RADIUS - 0.005, "iron")
    tip = lathe([(0.1, TOP - 0.14), (0.13, TOP - 0.07), (0.08, TOP)], "brass", segments=12)
    return Part("weather vane", (arrow, spindle, tip))
