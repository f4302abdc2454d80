"""The object in front of a known, flat background: RGB views in, RGBA views out, and back by `compose`.

Generated views show their object on white or grey, with the noise and the blur of a decoder. The object is what
cannot be reached from the border over the background's colour:

    view -> its true background level and noise -> flood from the border with a brush -> holes, judged one by one
         -> soft edge: how far each pixel lies between the background and the object's colour nearby -> straight alpha
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from engine.files import composite, to_bytes

EDGE_PX = 3.0
"""Width of an edge, from background to full colour: antialiasing and a decoder's blur."""
SMOOTHING_PX = 0.8
"""Noise is judged after this much blur (standard deviation)."""
FIRST_TOLERANCE = 18.0
"""Distance in RGB (0 to 441) from the nominal background that still counts while its true level is looked for."""
TOLERANCE = (6.0, 24.0)
"""Least and largest distance from the true background that counts as background; between them it follows the noise."""
NOISE_FACTOR = 1.6
"""Tolerance in medians of the noise, added to the least one's half."""
DRIFT = 14.0
"""How far the true background may lie from the nominal one, in levels of a channel."""
HOLE_EXTENT, HOLE_CORE, HOLE_MEDIAN = 1.5, 0.8, 1.2
"""In tolerances: a hole is as far as the distance stays below the first, and reaches below the second somewhere; half
of it lies below the third."""
HOLE_RIM = 3.0
"""Over the width of an edge, a hole's rim rises to this many tolerances ..."""
HOLE_STEP = 0.6
"""... and to this share of what it reaches over twice that width; a highlight fades out."""
HOLE_PX = 4
"""Smaller regions of the background's colour inside the object are the object's."""
SPECK_SHARE = 5e-4
"""Islands below this share of the picture are noise, unless they stand out."""
SPECK_CONTRAST = 4.0
"""Tolerances by which a small island stands out."""


@dataclass(frozen=True)
class _Contrast:
    """One view against its background."""

    difference: Float[np.ndarray, "h w 3"]
    """Levels above the true background."""
    distance: Float[np.ndarray, "h w"]
    """Length of the smoothed difference."""
    tolerance: float
    """Distances up to here are the background's noise."""


def compose(rgba: UInt8[np.ndarray, "*n h w 4"], background: tuple[int, int, int]) -> UInt8[np.ndarray, "*n h w 3"]:
    """Lay straight-alpha images over one sRGB colour (0 to 255), blending sRGB values as both papers' loaders do."""
    behind = np.broadcast_to(np.divide(background, 255.0), (*rgba.shape[-3:-1], 3))
    return to_bytes(composite(rgba, behind))


def grey_colour(level: float) -> tuple[int, int, int]:
    """Return a grey level, 0 to 1, as an sRGB colour of bytes."""
    return (round(255 * level),) * 3


def alpha_from_background(
    views: UInt8[np.ndarray, "n h w 3"],
    background: tuple[int, int, int],
    *,
    edge_px: float = EDGE_PX,
    hint: Float[np.ndarray, "n h w"] | None = None,
) -> UInt8[np.ndarray, "n h w 4"]:
    """Find the object in views over one flat colour.

    Args:
        views: sRGB, the object over the background, with a decoder's noise.
        background: its sRGB colour, 0 to 255; each view may be some levels off.
        edge_px: width of an edge from background to full colour; of views that are blurred, that of the blur.
        hint: alpha in [0, 1] from elsewhere, such as rendered splats: decides where the colour cannot, that is for
            parts in the background's colour and for holes.

    Returns:
        Straight alpha, sRGB; colours at soft edges are freed of the background, transparent pixels are black. A view
        without an object is transparent everywhere.
    """
    level = np.asarray(background, np.float32)
    hints = [None] * len(views) if hint is None else list(hint)
    cut = [
        cut_out(view.astype(np.float32), level, edge_px=edge_px, hint=h) for view, h in zip(views, hints, strict=True)
    ]
    return np.stack(cut) if cut else np.zeros((0, *views.shape[1:3], 4), np.uint8)


def cut_out(
    image: Float[np.ndarray, "h w 3"],
    background: Float[np.ndarray, "*hw 3"],
    *,
    edge_px: float = EDGE_PX,
    hint: Float[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w 4"]:
    """Find the object in one image over a background that is known: a colour, or one for each pixel.

    Args:
        image: sRGB, 0 to 255.
        background: sRGB, 0 to 255.
        edge_px: width of an edge from background to full colour, pixels.
        hint: as in `alpha_from_background`.
    """
    contrast = _against(image, background)
    solid = _solid(contrast, hint, edge_px)
    alpha, colour = _soft_edge(contrast.difference, solid, contrast.tolerance, edge_px)
    rgb = np.rint(np.clip(colour + (image - contrast.difference), 0, 255)).astype(np.uint8)
    alpha_level = np.rint(255 * alpha).astype(np.uint8)
    rgb[alpha_level == 0] = 0
    return np.concatenate([rgb, alpha_level[..., None]], axis=-1)


# ---------------------------------------------------------------- where the background is
def _against(image: Float[np.ndarray, "h w 3"], background: Float[np.ndarray, "*hw 3"]) -> _Contrast:
    """Measure the background's true level and noise where it touches the border."""
    difference = image - background
    distance = _smoothed_length(difference)
    outside = _flood(distance < FIRST_TOLERANCE)
    if not outside.any():
        return _Contrast(difference, distance, FIRST_TOLERANCE)
    sure = ndimage.binary_erosion(outside, iterations=2, border_value=1)
    sure = sure if sure.any() else outside
    drift = np.clip(np.median(difference[sure], axis=0), -DRIFT, DRIFT).astype(np.float32)
    distance = _smoothed_length(difference - drift)
    tolerance = float(np.clip(TOLERANCE[0] / 2 + NOISE_FACTOR * np.median(distance[sure]), *TOLERANCE))
    return _Contrast(difference - drift, distance, tolerance)


def _smoothed_length(difference: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    smooth = ndimage.gaussian_filter(difference, (SMOOTHING_PX, SMOOTHING_PX, 0), mode="nearest")
    return np.linalg.norm(smooth, axis=-1)


def _flood(candidate: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What a brush of 3 x 3 pixels reaches from the border, and two pixels more where it is too wide.

    The brush does not leak into the object through gaps in its edge; the two pixels are for narrow corners.
    """
    brushed = ndimage.binary_erosion(candidate, np.ones((3, 3)), border_value=1)
    border = np.ones_like(candidate)
    border[1:-1, 1:-1] = False
    reached = ndimage.binary_propagation(brushed & border, mask=brushed)
    touched = ndimage.binary_dilation(reached, np.ones((3, 3))) & candidate
    return ndimage.binary_dilation(touched, iterations=2, mask=candidate)


def _solid(contrast: _Contrast, hint: Float[np.ndarray, "h w"] | None, edge_px: float) -> Bool[np.ndarray, "h w"]:
    """Everything that is not the background, without noise's islands, with the holes that are real."""
    near = contrast.distance < contrast.tolerance
    outside = _flood(near)
    if hint is not None:  # two pixels inside the hint's edge a colour like the background's is still the object
        outside &= ~ndimage.binary_erosion(hint > 0.9, iterations=2, border_value=1)
    regions, count = ndimage.label((contrast.distance < HOLE_EXTENT * contrast.tolerance) & ~outside)
    holes = _holes(regions, count, contrast, hint, round(edge_px))
    solid = ~outside & ~holes
    return solid & ~_specks(solid, contrast)


def _holes(
    regions: Int[np.ndarray, "h w"],
    count: int,
    contrast: _Contrast,
    hint: Float[np.ndarray, "h w"] | None,
    rim_px: int,
) -> Bool[np.ndarray, "h w"]:
    """Regions inside the object where the background shows: exactly its colour, up to a sharp rim."""
    holes = np.zeros(regions.shape, bool)
    for index, box in enumerate(ndimage.find_objects(regions), 1):
        window = tuple(slice(max(side.start - 2 * rim_px, 0), side.stop + 2 * rim_px) for side in box)
        region = regions[window] == index
        if region.sum() < HOLE_PX:
            continue
        if hint is not None:
            seen = float(hint[window][region].mean()) < 0.5
        else:
            seen = _is_hole(region, contrast.distance[window], contrast.tolerance, rim_px)
        holes[window] |= region & seen
    return holes


def _is_hole(
    region: Bool[np.ndarray, "h w"], distance: Float[np.ndarray, "h w"], tolerance: float, rim_px: int
) -> bool:
    inside = distance[region]
    if inside.min() >= HOLE_CORE * tolerance or float(np.median(inside)) >= HOLE_MEDIAN * tolerance:
        return False
    away = ndimage.distance_transform_cdt(~region, "chessboard")
    rim, beyond = distance[away == rim_px], distance[away == 2 * rim_px]
    if not len(rim) or not len(beyond):  # the whole window: nothing is around it
        return False
    risen = float(np.median(rim)) > HOLE_STEP * float(np.median(beyond))
    return risen and float(np.percentile(rim, 25)) > HOLE_RIM * tolerance


def _specks(solid: Bool[np.ndarray, "h w"], contrast: _Contrast) -> Bool[np.ndarray, "h w"]:
    """Islands so small and so faint that they are noise."""
    islands, count = ndimage.label(solid, np.ones((3, 3)))
    if count == 0:
        return np.zeros_like(solid)
    index = np.arange(count + 1)
    area = np.bincount(islands.ravel(), minlength=count + 1)
    peak = ndimage.maximum(contrast.distance, islands, index)
    noise = (area < max(SPECK_SHARE * solid.size, 9)) & (peak < SPECK_CONTRAST * contrast.tolerance)
    noise |= peak < 2 * contrast.tolerance
    noise[0] = False
    return noise[islands]


# ---------------------------------------------------------------- soft edges
def _soft_edge(
    difference: Float[np.ndarray, "h w 3"], solid: Bool[np.ndarray, "h w"], tolerance: float, edge_px: float
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
    """Alpha, and the object's own colour as a difference from the background.

    With a pixel's mixture C - B = alpha (F - B), and F taken from inside the object nearby, alpha is the projection of
    C - B onto F - B; where F hardly differs from B it follows the distance from the edge instead.
    """
    depth = ndimage.distance_transform_edt(np.pad(solid, 1, mode="edge"))[1:-1, 1:-1] if solid.any() else solid * 0.0
    if solid.all():
        depth = np.full(solid.shape, 2 * edge_px)
    own = _colour_nearby(difference, solid, depth, edge_px)
    length = np.linalg.norm(own, axis=-1)
    mixed = (difference * own).sum(-1) / np.maximum(length, 1e-6) ** 2
    by_depth = np.clip((depth - 0.5) / (edge_px / 2), 0, 1)
    trust = np.clip(length / tolerance / 2 - 0.5, 0, 1)  # none below one tolerance, full from three on
    alpha = trust * np.clip((mixed - 0.04) / 0.92, 0, 1) + (1 - trust) * by_depth
    alpha = np.maximum(alpha, np.clip(depth - edge_px, 0, 1))  # deep inside a light detail is no edge
    alpha = np.where(solid, alpha, 0)
    return alpha, _unmixed(difference, own, alpha)


def _colour_nearby(
    difference: Float[np.ndarray, "h w 3"],
    solid: Bool[np.ndarray, "h w"],
    depth: Float[np.ndarray, "h w"],
    edge_px: float,
) -> Float[np.ndarray, "h w 3"]:
    """The object's colour without its edge: the mean of the inside nearby, or the strongest where all is edge."""
    inside = (depth > edge_px).astype(np.float32)
    blur = (edge_px * 0.6, edge_px * 0.6)
    weight = ndimage.gaussian_filter(inside, blur, mode="nearest", truncate=3)
    mean = ndimage.gaussian_filter(difference * inside[..., None], (*blur, 0), mode="nearest", truncate=3)
    strongest = _strongest(difference * solid[..., None], round(edge_px) // 2 + 1)
    share = np.clip(weight / 0.02, 0, 1)[..., None]
    return share * mean / np.maximum(weight, 1e-6)[..., None] + (1 - share) * strongest


def _strongest(difference: Float[np.ndarray, "h w 3"], radius: int) -> Float[np.ndarray, "h w 3"]:
    """Of each pixel's neighbours the difference that is longest."""
    length = np.linalg.norm(difference, axis=-1)
    best, chosen = length.copy(), difference.copy()
    padded: Any = np.pad(difference, ((radius, radius), (radius, radius), (0, 0)))
    lengths = np.pad(length, radius)
    height, width = length.shape
    for v in range(2 * radius + 1):
        for u in range(2 * radius + 1):
            there = lengths[v : v + height, u : u + width]
            longer = there > best
            best = np.where(longer, there, best)
            chosen = np.where(longer[..., None], padded[v : v + height, u : u + width], chosen)
    return chosen


def _unmixed(
    difference: Float[np.ndarray, "h w 3"], own: Float[np.ndarray, "h w 3"], alpha: Float[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w 3"]:
    """(C - B) / alpha, which is exact but noisy where alpha is small: there the colour nearby takes over."""
    exact = difference / np.maximum(alpha, 0.05)[..., None]
    trust = np.where(alpha < 1, np.clip((alpha - 0.15) / 0.6, 0, 1), 1)[..., None]
    return trust * exact + (1 - trust) * own
