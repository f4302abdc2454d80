"""Every paint of the example, by name: what stone, stripes, planks, tiles and water look like."""

import itertools

import numpy as np

from render_farm.worker.example.islet import SEA_LEVEL
from render_farm.worker.example.lighthouse import TOWER_HEIGHT
from render_farm.worker.example.paint import (
    Colours,
    Noise,
    Paint,
    Texels,
    Values,
    bricks,
    flat_u,
    mix,
    rgb,
    rolled_out,
    step,
)

WHITE, CREAM, RED, DEEP_RED = rgb("#f1ece0"), rgb("#ecdcb9"), rgb("#c5352b"), rgb("#a32a25")
STONE, DARK_STONE, PALE_STONE = rgb("#968c7f"), rgb("#5f5a56"), rgb("#bdb09b")
MOSS, GRASS, SAND, WET = rgb("#76853a"), rgb("#86a046"), rgb("#d2b98a"), rgb("#3a4138")
WOOD, PALE_WOOD, DARK_WOOD = rgb("#a3764a"), rgb("#c59d6c"), rgb("#6e4b30")
TEAL, DEEP, SHALLOW, FOAM = rgb("#2d8c9e"), rgb("#1c5f7e"), rgb("#5cbcb8"), rgb("#e9f4f0")
IRON, BRASS, BLUE = rgb("#3b444d"), rgb("#d9a53a"), rgb("#2f6f9c")

STRIPES = 7
PATH = np.array([[1.0, -1.3], [0.9, -1.75], [0.2, -1.75], [-0.75, -1.5]])
"""The trodden path on the terrace: from the steps to both doors, (x, y) in metres."""


def weathered(base: Colours, t: Texels, noise: Noise, amount: float = 0.1) -> Colours:
    """Return the colour with large and small mottling, a little lighter upwards: what a brush leaves."""
    broad, fine = noise.layered(t.world * 1.6 + 3.1), noise.layered(t.world * 9.0)
    light = 1 + amount * ((broad - 0.5) * 1.6 + (fine - 0.5)) + 0.06 * t.world_normal[:, 2]
    return base * light[:, None]


def plain(code: str, amount: float = 0.1) -> Paint:
    """Return a paint of one colour with weathering."""
    colour = rgb(code)

    def paint(t: Texels, noise: Noise) -> Colours:
        return weathered(np.broadcast_to(colour, t.local.shape), t, noise, amount)

    return paint


def stripes(t: Texels, noise: Noise) -> Colours:
    """Red and white bands on rendered brick: chipped along their edges, streaked by rain."""
    z = t.local[:, 2]
    wobble = 0.03 * (noise.layered(t.local * 5.0) - 0.5)
    band = (z + wobble) / TOWER_HEIGHT * STRIPES
    inside = np.minimum(band % 1, 1 - band % 1)
    red = (np.floor(band) % 2 == 0).astype(np.float64)
    laid = bricks(noise, rolled_out(t, 28) * 0.36, z, 0.36, 0.19, 0.022)
    colour = mix(np.broadcast_to(WHITE, t.local.shape), RED, red)
    colour = colour * (1 + 0.09 * (laid.tone - 0.5) - 0.1 * laid.joint)[:, None]
    chips = step(0.60, 0.68, noise.layered(t.local * 7.0 + 40, 3) + 0.08 * step(0.12, 0.0, inside) - 0.04)
    colour = mix(colour, np.where(red[:, None] > 0.5, rgb("#d97f6c"), rgb("#cfc3ae")), 0.75 * chips)
    runs = noise.layered(t.local * [6.0, 6.0, 0.7] + 11) * step(0.2, 0.9, 1 - z / TOWER_HEIGHT)
    colour = mix(colour, rgb("#8f8468"), 0.5 * step(0.42, 0.75, runs))
    return weathered(colour, t, noise, 0.07)


def _rock_base(t: Texels, noise: Noise) -> Colours:
    """Warm grey stone with tilted strata, a few cracks and a tone for each facet."""
    strata = t.world[:, 2] * 3.0 + t.world[:, 0] * 0.7 + 1.6 * noise.layered(t.world * 0.9)
    layer = noise.smooth(np.stack([0 * strata, 0 * strata, strata * 2.2], axis=1))
    colour = mix(np.broadcast_to(STONE, t.local.shape), DARK_STONE, 0.75 * step(0.55, 0.95, layer))
    colour = mix(colour, PALE_STONE, 0.8 * step(0.5, 0.85, noise.layered(t.world * 1.3 + 70)))
    warm = step(0.5, 0.75, noise.layered(t.world * 0.8 + 23))
    colour = mix(colour, rgb("#b08860"), 0.6 * warm)
    crack = np.abs(noise.layered(t.world * [2.6, 2.6, 0.9] + 51, 3) - 0.5)
    colour = mix(colour, DARK_STONE, 0.5 * step(0.016, 0.004, crack) * step(0.5, 0.62, noise.smooth(t.world * 1.7)))
    facet = noise.smooth(t.world_normal * 2.2 + 30)  # every facet in a tone of its own, as if chiselled
    return colour * (1 + 0.3 * (facet - 0.5) + 0.3 * (noise.layered(t.world * 12.0) - 0.5))[:, None]


def rock(t: Texels, noise: Noise) -> Colours:
    """Stone with grass and moss on what faces up, a sandy path, and bands of wet weed and salt at the water."""
    up, z = t.world_normal[:, 2], t.world[:, 2]
    ragged = noise.layered(t.world * 3.5 + 8)
    colour = _rock_base(t, noise)
    colour = mix(colour, MOSS, 0.9 * step(0.5, 0.78, up + 0.8 * (ragged - 0.5)) * step(0.9, 1.25, z + ragged - 0.5))
    blades = noise.layered(t.world * [16.0, 16.0, 5.0])
    grass = mix(np.broadcast_to(GRASS, t.local.shape), rgb("#5c7a33"), step(0.35, 0.7, blades))
    grass = mix(grass, rgb("#b3ba5c"), 0.6 * step(0.52, 0.75, noise.layered(t.world * 2.0 + 5)))
    colour = mix(colour, grass, step(0.45, 0.58, up + 0.7 * (ragged - 0.5)) * step(1.45, 1.6, z + 0.5 * (ragged - 0.5)))
    trodden = step(0.46, 0.3, _distance_to_path(t) + 0.3 * (ragged - 0.5)) * step(0.8, 0.9, up) * step(1.7, 1.8, z)
    colour = mix(colour, SAND * (0.86 + 0.28 * blades)[:, None], trodden)
    height = z - SEA_LEVEL + 0.28 * (ragged - 0.5)
    colour = mix(colour, rgb("#d8cfb8"), 0.5 * step(0.30, 0.36, height) * step(0.52, 0.4, height))
    colour = mix(colour, WET * (0.8 + 0.5 * ragged)[:, None], 0.9 * step(0.38, 0.26, height))
    return weathered(colour, t, noise, 0.08)


def _distance_to_path(t: Texels) -> Values:
    """Return the distance in plan to the polyline PATH, metres."""
    p, nearest = t.world[:, :2], np.full(len(t.world), np.inf)
    for a, b in itertools.pairwise(PATH):
        share = np.clip((p - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(p - a - share[:, None] * (b - a), axis=1))
    return nearest


def sea(t: Texels, noise: Noise) -> Colours:
    """Water from turquoise at the shore to deep blue at the rim, with foam lines round all that stands in it."""
    drift = noise.layered(t.world * [1.2, 1.2, 0.2] + 31)
    shore = t.shore_m + 0.35 * (drift - 0.5)
    colour = mix(np.broadcast_to(SHALLOW, t.local.shape), TEAL, step(0.05, 0.75, shore))
    colour = mix(colour, DEEP, step(0.6, 2.0, shore))
    ripple = noise.layered(t.world * [2.6, 5.2, 1.0] + 2)
    colour = mix(colour, SHALLOW, 0.55 * step(0.56, 0.66, ripple))
    bubbles = noise.layered(t.world * 6.0 + 9)
    colour = mix(colour, FOAM, 0.95 * step(0.17, 0.07, shore + 0.16 * (bubbles - 0.5)))
    second = np.abs(t.shore_m - 0.5 + 0.7 * (drift - 0.5))
    colour = mix(colour, FOAM, 0.7 * step(0.06, 0.02, second) * step(0.42, 0.6, bubbles))
    depth = SEA_LEVEL - t.world[:, 2]
    colour = mix(colour, rgb("#17486a"), step(0.08, 0.36, depth))
    colour = mix(colour, rgb("#c9b48a"), step(0.36, 0.4, depth))
    return weathered(colour, t, noise, 0.05)


def masonry(t: Texels, noise: Noise) -> Colours:
    """Squared stones: rolled out round a plinth, or laid flat along a wall."""
    vertical = np.abs(t.local_normal[:, 2]) < 0.6
    round_wall = np.ptp(np.linalg.norm(t.local[vertical, :2], axis=1)) < 0.3 if vertical.any() else False
    u = rolled_out(t, 20) * 0.55 if round_wall else flat_u(t)
    laid = bricks(noise, u, t.local[:, 2] + 0.1, 0.55, 0.3, 0.035)
    colour = mix(np.broadcast_to(rgb("#8e877e"), t.local.shape), rgb("#b7aa97"), laid.tone)
    colour = mix(colour, rgb("#5d574f"), 0.7 * laid.joint * vertical)
    return weathered(colour, t, noise, 0.2)


def brick(t: Texels, noise: Noise) -> Colours:
    """Small red bricks with pale joints."""
    laid = bricks(noise, flat_u(t), t.local[:, 2], 0.23, 0.11, 0.018)
    colour = mix(np.broadcast_to(rgb("#a4513a"), t.local.shape), rgb("#c9805a"), laid.tone)
    return weathered(mix(colour, rgb("#d8c6ac"), 0.75 * laid.joint), t, noise, 0.12)


def plaster(t: Texels, noise: Noise) -> Colours:
    """Limewash, darker towards the ground, with a few bare stones."""
    colour = np.broadcast_to(CREAM, t.local.shape)
    bare = step(0.64, 0.7, noise.layered(t.world * 2.6 + 60))
    colour = mix(colour, rgb("#bfa987"), 0.7 * bare)
    return weathered(colour, t, noise, 0.1)


def tiles(t: Texels, noise: Noise) -> Colours:
    """Clay tiles: the courses are modelled, the tiles within one are painted. Local y runs along the ridge."""
    across = np.abs(t.local[:, 0])
    row = np.floor(across / 0.2)
    along = t.local[:, 1] / 0.24 + 0.5 * (row % 2)
    tone = noise.cell(np.floor(along) + 32, row + 16 * (t.local[:, 0] > 0))
    edge = np.minimum(along % 1, 1 - along % 1)
    colour = mix(np.broadcast_to(rgb("#b5502f"), t.local.shape), rgb("#dd8a55"), tone)
    colour = mix(colour, rgb("#7d3423"), 0.75 * step(0.1, 0.03, edge))
    lichen = step(0.62, 0.72, noise.layered(t.world * 3.0 + 77))
    return weathered(mix(colour, rgb("#b7ad6e"), 0.5 * lichen), t, noise, 0.12)


def planks(t: Texels, noise: Noise) -> Colours:
    """One board: grain along its local x; every board has a tone of its own."""
    tone = noise.smooth(t.world.mean(axis=0, keepdims=True) * 7.7)[0]
    grain = noise.layered(t.local * [1.2, 14.0, 14.0] + 10 * tone)
    colour = mix(
        np.broadcast_to(WOOD + (PALE_WOOD - WOOD) * tone, t.local.shape), DARK_WOOD, 0.7 * step(0.5, 0.8, grain)
    )
    return weathered(colour, t, noise, 0.1)


def post(t: Texels, noise: Noise) -> Colours:
    """Round timber along local z, with a pale sawn end and weed below the tide line."""
    grain = noise.layered(t.local * [14.0, 14.0, 1.4])
    colour = mix(np.broadcast_to(WOOD * 0.92, t.local.shape), DARK_WOOD, step(0.42, 0.75, grain))
    colour = mix(colour, PALE_WOOD, 0.85 * step(0.8, 0.95, t.local_normal[:, 2]))
    return weathered(mix(colour, WET, 0.85 * step(0.75, 0.6, t.world[:, 2])), t, noise, 0.08)


def crate(t: Texels, noise: Noise) -> Colours:
    """Boards in a frame."""
    size = np.abs(t.local - [0, 0, 0])
    lateral = np.sort(size, axis=1)[:, 1]
    board = np.abs((t.local[:, 2] / 0.11) % 1 - 0.5)
    colour = mix(np.broadcast_to(PALE_WOOD, t.local.shape), DARK_WOOD, 0.7 * step(0.42, 0.48, board))
    colour = mix(colour, WOOD * 0.85, step(0.155, 0.165, lateral))
    return weathered(colour, t, noise, 0.2)


def barrel(t: Texels, noise: Noise) -> Colours:
    """Staves under three iron hoops."""
    stave = rolled_out(t, 14)
    seam = np.minimum(stave % 1, 1 - stave % 1)
    tone = noise.cell(np.floor(stave) + 20, 0 * stave)
    colour = mix(np.broadcast_to(WOOD, t.local.shape), PALE_WOOD, tone)
    colour = mix(colour, DARK_WOOD, 0.8 * step(0.12, 0.04, seam))
    hoop = np.min([np.abs(t.local[:, 2] - z) for z in (0.06, 0.32, 0.58)], axis=0)
    side = np.abs(t.local_normal[:, 2]) < 0.6
    return weathered(mix(colour, IRON, step(0.055, 0.045, hoop) * side), t, noise, 0.1)


def hull(t: Texels, noise: Noise) -> Colours:
    """A white boat with a blue strake over a yellow line below its wooden gunwale."""
    z = t.local[:, 2] - 0.16 * (t.local[:, 0] / 0.95) ** 4
    colour = mix(np.broadcast_to(WHITE, t.local.shape), BLUE, step(0.40, 0.41, z))
    colour = mix(colour, rgb("#e7b23c"), step(0.33, 0.34, z) * step(0.41, 0.40, z))
    colour = mix(colour, PALE_WOOD, step(0.6, 0.8, t.local_normal[:, 2]) * (z > 0.4))
    return weathered(colour, t, noise, 0.08)


def window(t: Texels, noise: Noise) -> Colours:
    """Dark blue panes with a sky gradient and a glint, behind white glazing bars."""
    x, z = t.local[:, 0], t.local[:, 2]
    colour = mix(np.broadcast_to(rgb("#20384d"), t.local.shape), rgb("#6fa3bd"), step(0.1, 0.95, z / 0.8))
    glint = np.abs((x + 0.5 * z) % 0.4 - 0.2)
    colour = mix(colour, rgb("#cfe6ec"), 0.45 * step(0.05, 0.03, glint))
    bars = np.minimum(np.abs(x), np.abs((z - 0.03) % 0.36 - 0.3))
    return mix(colour, WHITE, step(0.04, 0.028, bars))


def plank_door(t: Texels, noise: Noise) -> Colours:
    """Upright blue boards with iron straps and a brass knob."""
    x, z = t.local[:, 0], t.local[:, 2]
    board = np.abs((x / 0.15) % 1 - 0.5)
    tone = noise.cell(np.floor(x / 0.15) + 20, 0 * x)
    colour = np.broadcast_to(BLUE, t.local.shape) * (0.9 + 0.25 * tone)[:, None]
    colour = mix(colour, rgb("#173d58"), 0.8 * step(0.4, 0.48, board))
    straps = np.min([np.abs(z - h) for h in (0.26, 0.78)], axis=0)
    colour = mix(colour, IRON, step(0.05, 0.04, straps))
    knob = np.hypot(x - 0.17, z - 0.52)
    return weathered(mix(colour, BRASS * 1.1, step(0.075, 0.055, knob)), t, noise, 0.1)


def lamp(t: Texels, noise: Noise) -> Colours:
    """The lens: warm light, brightest at the middle, with darker grooves."""
    z = t.local[:, 2]
    middle = step(0.5, 0.0, np.abs(z - z.mean()))
    colour = mix(np.broadcast_to(rgb("#ffbf2e"), t.local.shape), rgb("#ffe680"), middle)
    return colour * (0.93 + 0.07 * np.abs(t.local_normal[:, 2] - 1) / 2)[:, None]


def dome(t: Texels, noise: Noise) -> Colours:
    """Painted metal sheets between ribs, with streaks of verdigris from the ball."""
    sheet = rolled_out(t, 16)
    rib = np.minimum(sheet % 1, 1 - sheet % 1) * np.linalg.norm(t.local[:, :2], axis=1)
    colour = mix(np.broadcast_to(RED, t.local.shape), DEEP_RED * 0.8, 0.8 * step(0.07, 0.02, rib))
    runs = noise.layered(t.local * [5.0, 5.0, 1.2] + 91)
    return weathered(mix(colour, rgb("#d9715a"), 0.6 * step(0.52, 0.72, runs)), t, noise, 0.1)


def leaves(t: Texels, noise: Noise) -> Colours:
    """Foliage: dark in the hollows, light on the lobes, with a few flowers."""
    clump = noise.layered(t.world * 7.0, 3)
    colour = mix(np.broadcast_to(rgb("#3f6130"), t.local.shape), rgb("#7fa044"), step(0.3, 0.7, clump))
    flower = step(0.78, 0.82, noise.smooth(t.world * 11.0 + 13))
    colour = mix(colour, rgb("#f0c7d4"), flower)
    return weathered(colour, t, noise, 0.25)


PAINTS: dict[str, Paint] = {
    "barrel": barrel,
    "brass": plain("#d9a53a"),
    "brick": brick,
    "clay": plain("#bf6a42"),
    "crate": crate,
    "deck": plain("#b9b2a6", 0.16),
    "dome": dome,
    "hull": hull,
    "iron": plain("#465460"),
    "lamp": lamp,
    "leaves": leaves,
    "masonry": masonry,
    "oar": plain("#e6cfa2"),
    "plank_door": plank_door,
    "planks": planks,
    "plaster": plaster,
    "post": post,
    "red_trim": plain("#b02e28"),
    "ridge": plain("#9c4429", 0.14),
    "rock": rock,
    "sea": sea,
    "stone": plain("#a89d8c", 0.3),
    "stripes": stripes,
    "tiles": tiles,
    "trim": plain("#eee7d8", 0.08),
    "varnish": plain("#b98a55", 0.2),
    "window": window,
}
