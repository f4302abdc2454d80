"""What the keeper lives with: the cottage, the jetty, the rowing boat, a barrel and a crate (metres)."""

import numpy as np

from render_farm.worker.example.islet import SEA_LEVEL, STEPS_FOOT, STEPS_TURN_DEG
from render_farm.worker.example.solids import Part, Solid, box, lathe, loft, pose, prism, rod

COTTAGE_LENGTH, COTTAGE_DEPTH, WALL_HEIGHT = 2.1, 1.6, 1.15
ROOF_RISE, ROOF_OVERHANG, ROOF_COURSES = 0.95, 0.2, 5
JETTY_LENGTH, JETTY_WIDTH, PLANKS = 1.75, 1.0, 7
BOAT_LENGTH, BOAT_BEAM, BOAT_HEIGHT = 1.9, 0.92, 0.56


def cottage() -> Part:
    """Return the keeper's cottage, front at -Y, floor at z = 0: walls, openings, tiled roof and chimney."""
    walls = box((COTTAGE_LENGTH, COTTAGE_DEPTH, WALL_HEIGHT + 0.1), "plaster", at=(0, 0, WALL_HEIGHT / 2))
    footing = box((COTTAGE_LENGTH + 0.2, COTTAGE_DEPTH + 0.2, 1.6), "masonry", at=(0, 0, 0.14 - 0.8))
    gable = [(-COTTAGE_DEPTH / 2, 0.0), (COTTAGE_DEPTH / 2, 0.0), (0.0, ROOF_RISE + 0.1)]
    end_walls = prism(gable, (-COTTAGE_LENGTH / 2, COTTAGE_LENGTH / 2), "plaster")
    end_walls = end_walls.moved(pose((0.0, 0.0, WALL_HEIGHT), turn_deg=90.0))
    half, side = COTTAGE_DEPTH / 2, COTTAGE_LENGTH / 2
    openings = [
        _opening(0.4, 0.12, 0.56, 0.98, half, 0.0, "plank_door"),
        _opening(-0.5, 0.42, 0.5, 0.58, half, 0.0, "window"),
        _opening(0.0, 0.42, 0.52, 0.58, half, 180.0, "window"),
        _opening(0.0, 0.6, 0.5, 0.75, side, 90.0, "window"),
        _opening(0.0, 0.6, 0.5, 0.75, side, -90.0, "window"),
    ]
    frames, holes, panes = zip(*openings, strict=True)
    doorstep = box((0.8, 0.45, 0.8), "stone", at=(0.4, -half - 0.2, -0.28))
    return Part("cottage", (walls, footing, end_walls, doorstep, *frames, *_roof()), holes, (*panes, *_chimney()))


def _opening(
    x: float, sill: float, width: float, height: float, front: float, turn_deg: float, filling: str
) -> tuple[Solid, Solid, Solid]:
    """Return the frame, the hole and the filling of an opening in the wall at distance ``front``."""
    place = pose(turn_deg=turn_deg) @ pose((x, 0.0, sill))
    rise = 0.5 * (1 if filling == "window" else 0)
    outline = [(-width / 2, 0.0), (width / 2, 0.0), (width / 2, height), (-width / 2, height)]
    border = [(a + 0.1 * np.sign(a), b + (0.1 if b else -0.1 * 2 * rise)) for a, b in outline]
    frame = prism(border, (-front - 0.08, -front + 0.2), "trim")
    hole = prism(outline, (-front - 0.4, -front + 0.14), "trim")
    wider = [(a + 0.05 * np.sign(a), b + (0.05 if b else -0.05)) for a, b in outline]
    pane = prism(wider, (-front + 0.09, -front + 0.3), filling)
    return frame.moved(place), hole.moved(place), pane.moved(place)


def _roof() -> tuple[Solid, ...]:
    """Return the pitched roof, its courses of tiles stepping down each side, under a ridge cap."""
    reach = COTTAGE_DEPTH / 2 + ROOF_OVERHANG
    slope = ROOF_RISE / (COTTAGE_DEPTH / 2)
    lip = 0.075
    right = []
    for k in range(ROOF_COURSES):
        outer, inner = reach * (1 - k / ROOF_COURSES), reach * (1 - (k + 1) / ROOF_COURSES)
        right += [(outer, (reach - outer) * slope + lip * (1 if k else 0)), (outer, (reach - outer) * slope + 2 * lip)]
        right.append((inner, (reach - inner) * slope + lip))
    right = [*right[:-1], (0.0, reach * slope + lip)]
    outline = [*right, *[(-x, z) for x, z in right[-2::-1]], (-reach + 0.16, -0.02), (0.0, 0.5), (reach - 0.16, -0.02)]
    length = COTTAGE_LENGTH / 2 + ROOF_OVERHANG
    base = WALL_HEIGHT - ROOF_OVERHANG * slope + 0.06
    tiles = prism(outline, (-length, length), "tiles").moved(pose((0.0, 0.0, base), turn_deg=90.0))
    apex = base + reach * slope + lip
    ridge = rod((-length - 0.05, 0.0, apex), (length + 0.05, 0.0, apex), 0.13, "ridge", segments=12)
    return tiles, ridge


def _chimney() -> tuple[Solid, ...]:
    """Return a brick stack with a stone cap and two clay pots."""
    x, y, top = -0.62, 0.34, WALL_HEIGHT + ROOF_RISE + 0.55
    stack = box((0.46, 0.46, 1.3), "brick", at=(x, y, top - 0.65))
    cap = box((0.6, 0.6, 0.14), "stone", at=(x, y, top))
    pot = lathe(
        [(0.14, top), (0.12, top + 0.24), (0.15, top + 0.26), (0.15, top + 0.34)], "clay", segments=16, at=(x, y, 0)
    )
    return stack, cap, pot


def jetty() -> Part:
    """Return the plank jetty, running seaward (-Y) from the foot of the steps."""
    planks = []
    for k in range(PLANKS):
        pitch = JETTY_LENGTH / PLANKS
        size = (JETTY_WIDTH + 0.07 * (k % 3), pitch + 0.03, 0.16 + 0.012 * (k * 5 % 3))
        planks.append(box(size, "planks", at=(0.02 * (k % 2), -pitch * (k + 0.1), -0.08)))
    edge = JETTY_WIDTH / 2 - 0.02
    posts = [
        rod((x, -y, -0.8), (x, -y, up), 0.125, "post", segments=12)
        for y, up in ((0.35, 0.14), (1.5, 0.5))
        for x in (-edge, edge)
    ]
    beams = [box((0.16, JETTY_LENGTH, 0.16), "post", at=(x, -JETTY_LENGTH / 2 + 0.2, -0.2)) for x in (-edge, edge)]
    return Part("jetty", (*planks, *posts, *beams)).moved(pose(STEPS_FOOT, STEPS_TURN_DEG))


def boat() -> Part:
    """Return the rowing boat, bow at +X, afloat: an open double-ender with thwarts and a pair of oars."""
    hull = loft(_hull(BOAT_LENGTH, BOAT_BEAM, 0.0, BOAT_HEIGHT), "hull")
    inside = loft(_hull(BOAT_LENGTH - 0.34, BOAT_BEAM - 0.3, 0.3, BOAT_HEIGHT + 0.4), "varnish")
    thwarts = [box((0.2, BOAT_BEAM - 0.16, 0.12), "planks", at=(x, 0, BOAT_HEIGHT - 0.14)) for x in (-0.38, 0.3)]
    oars = [
        rod((-0.62, y, BOAT_HEIGHT + 0.02), (0.72, y * 0.6, BOAT_HEIGHT + 0.05), 0.075, "oar") for y in (-0.19, 0.17)
    ]
    return Part("boat", (hull,), (inside,), (*thwarts, *oars))


def _hull(length: float, beam: float, bottom: float, top: float) -> np.ndarray:
    """Return the hull's rings from the keel up: pointed ovals that widen with height, with a rising sheer."""
    t = np.arange(40) * (2 * np.pi / 40)
    along, across = np.cos(t), np.sin(t) * np.abs(np.sin(t)) ** 0.35
    rings = []
    for share in (0.0, 0.3, 0.65, 1.0):
        wide = 0.55 + 0.45 * np.sqrt(share)
        z = bottom + (top - bottom) * share + 0.16 * share * along**4
        rings.append(np.stack([along * length / 2 * (0.86 + 0.14 * share), across * beam / 2 * wide, z], axis=1))
    return np.stack(rings)


def barrel() -> Part:
    """Return a cask on a stone slab, the slab's top a little above z = 0."""
    z = np.linspace(0.0, 1.0, 9)
    staves = lathe([(0.25 + 0.06 * float(np.sin(np.pi * t)), 0.72 * float(t) - 0.05) for t in z], "barrel", segments=24)
    slab = box((0.85, 0.75, 1.6), "stone", at=(0.0, 0.0, -0.76), turn_deg=-14.0)
    return Part("barrel", (slab, staves))


def crate() -> Part:
    """Return a wooden box that stands on z = 0."""
    return Part("crate", (box((0.46, 0.46, 0.44), "crate", at=(0.0, 0.0, 0.2)),))


def harbour(cottage_at: tuple[float, float, float]) -> tuple[Part, ...]:
    """Return all of it in place; ``cottage_at`` is the middle of the cottage's floor."""
    x, y, z = cottage_at
    return (
        cottage().moved(pose(cottage_at, turn_deg=-14.0)),
        barrel().moved(pose((x + 0.85, y - 1.25, z))),
        jetty(),
        crate().moved(pose((STEPS_FOOT[0] + 0.2, STEPS_FOOT[1] - 1.05, STEPS_FOOT[2]), turn_deg=20.0)),
        boat().moved(pose((-0.75, -3.95, SEA_LEVEL - 0.1), turn_deg=168.0)),
    )
