"""Numba kernels, one thread a tile: front-to-back blending, and its gradient back to front.

Within a tile the loops run Gaussian by Gaussian over the rows that the ellipse's box covers, and the columns
that the ellipse itself spans, so that nearly every pixel they touch is drawn. The gradient needs no atomics: each
(tile, Gaussian) pair writes a row of its own.
"""

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from engine.splats.limits import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

Array = NDArray[Any]
TILE_PX = 16
ROUNDING = 1e-3
"""Rows are walked a little beyond where alpha falls to ALPHA_MIN; the test of alpha itself then decides."""


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def sort_into_tiles(order: Array, boxes: Array, width: int, height: int) -> tuple[Array, Array]:
    """Return start [tiles + 1] and Gaussian ids [pairs]: each tile's Gaussians, nearest first.

    order [n] sorts the Gaussians by depth; a counting sort keeps that order within the tiles.
    """
    across, down = (width + TILE_PX - 1) // TILE_PX, (height + TILE_PX - 1) // TILE_PX
    start = np.zeros(across * down + 1, np.int64)
    for i in range(len(boxes)):
        u0, u1, v0, v1 = boxes[i]
        if u1 > u0 and v1 > v0:
            for row in range(v0 // TILE_PX, (v1 - 1) // TILE_PX + 1):
                for column in range(u0 // TILE_PX, (u1 - 1) // TILE_PX + 1):
                    start[row * across + column + 1] += 1
    for tile in range(across * down):
        start[tile + 1] += start[tile]
    cursor = start[:-1].copy()
    ids = np.empty(start[-1], np.int32)
    for i in order:
        u0, u1, v0, v1 = boxes[i]
        if u1 > u0 and v1 > v0:
            for row in range(v0 // TILE_PX, (v1 - 1) // TILE_PX + 1):
                for column in range(u0 // TILE_PX, (u1 - 1) // TILE_PX + 1):
                    tile = row * across + column
                    ids[cursor[tile]] = i
                    cursor[tile] += 1
    return start, ids


@njit(inline="always", cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _falloff(power: float) -> float:
    """exp(-power) for 0 <= power <= 6, relative error 2e-6: (Taylor of degree 6 at power / 16) ** 16.

    Beyond ln 255 = 5.54 even an opaque splat is fainter than ALPHA_MIN, and `_span` has left those pixels out.
    """
    x = power * np.float32(-1 / 16)
    y = np.float32(1 / 120) + x * np.float32(1 / 720)
    y = np.float32(1 / 24) + x * y
    y = np.float32(1 / 6) + x * y
    y = np.float32(1 / 2) + x * y
    y = np.float32(1) + x * (np.float32(1) + x * y)
    y *= y
    y *= y
    y *= y
    return y * y


@njit(inline="always", cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def _span(A: float, B: float, C: float, u: float, dv: float, reach: float, left: int, right: int) -> tuple[int, int]:
    """Columns of a row whose centres lie in the ellipse A du^2 + B du dv + C dv^2 <= reach, within left and right."""
    half_b = np.float32(0.5) * B * dv
    inside = half_b * half_b - A * (C * dv * dv - reach)
    if inside <= 0:
        return left, left
    root, middle = math.sqrt(inside), u - np.float32(0.5) - half_b / A
    return max(left, math.ceil(middle - root / A)), min(right, math.floor(middle + root / A) + 1)


def _forward_for(channels: int) -> Any:
    """Compile the forward kernel for a fixed number of channels, so that loops over them are unrolled."""

    @njit(parallel=True, cache=True, fastmath=True)
    @no_type_check
    def forward(
        start, ids, pixels, conics, opacity, boxes, features,
        picture, transmittance, last,
    ):  # fmt: skip
        height, width, _ = picture.shape
        across = (width + TILE_PX - 1) // TILE_PX
        for tile in prange(len(start) - 1):
            top, left = (tile // across) * TILE_PX, (tile % across) * TILE_PX
            bottom, right = min(top + TILE_PX, height), min(left + TILE_PX, width)
            begin, end = start[tile], start[tile + 1]
            last[top:bottom, left:right] = end
            unfinished = (bottom - top) * (right - left)
            for pair in range(begin, end):
                if unfinished == 0:
                    break
                g = ids[pair]
                u, v, o = pixels[g, 0], pixels[g, 1], opacity[g]
                A, B, C = np.float32(0.5) * conics[g, 0], conics[g, 1], np.float32(0.5) * conics[g, 2]
                reach = math.log(o / np.float32(ALPHA_MIN)) + np.float32(ROUNDING)
                for row in range(max(top, boxes[g, 2]), min(bottom, boxes[g, 3])):
                    dv = np.float32(row) + np.float32(0.5) - v
                    first, stop = _span(A, B, C, u, dv, reach, left, right)
                    for column in range(first, stop):
                        if last[row, column] <= pair:
                            continue
                        du = np.float32(column) + np.float32(0.5) - u
                        alpha = o * _falloff(A * du * du + B * du * dv + C * dv * dv)
                        if alpha < ALPHA_MIN:
                            continue
                        alpha = min(alpha, np.float32(ALPHA_MAX))
                        before = transmittance[row, column]
                        after = before * (np.float32(1.0) - alpha)
                        if after <= TRANSMITTANCE_MIN:
                            last[row, column] = pair
                            unfinished -= 1
                            continue
                        weight = alpha * before
                        for channel in range(channels):
                            picture[row, column, channel] += weight * features[g, channel]
                        transmittance[row, column] = after

    return forward


def _backward_for(channels: int) -> Any:
    """Compile the backward kernel for a fixed number of channels."""

    @njit(parallel=True, cache=True, fastmath=True)
    @no_type_check
    def backward(
        start, ids, pixels, conics, opacity, boxes, features,
        transmittance, last, d_picture, d_alpha, rows,
    ):  # fmt: skip
        height, width, _ = d_picture.shape
        across = (width + TILE_PX - 1) // TILE_PX
        for tile in prange(len(start) - 1):
            top, left = (tile // across) * TILE_PX, (tile % across) * TILE_PX
            bottom, right = min(top + TILE_PX, height), min(left + TILE_PX, width)
            light = transmittance[top:bottom, left:right].copy()
            behind = -d_alpha[top:bottom, left:right] * light  # the background is behind everything
            d_feature = np.empty(channels, np.float32)
            for pair in range(start[tile + 1] - 1, start[tile] - 1, -1):
                g = ids[pair]
                u, v, o = pixels[g, 0], pixels[g, 1], opacity[g]
                a, B, c = conics[g, 0], conics[g, 1], conics[g, 2]
                A, C = np.float32(0.5) * a, np.float32(0.5) * c
                reach = math.log(o / np.float32(ALPHA_MIN)) + np.float32(ROUNDING)
                # sums over pixels of s, s du, s dv, s du^2, s du dv, s dv^2, where s is the opacity's gradient
                s_o = s_u = s_v = s_uu = s_uv = s_vv = np.float32(0.0)
                d_feature[:] = 0
                for row in range(max(top, boxes[g, 2]), min(bottom, boxes[g, 3])):
                    dv = np.float32(row) + np.float32(0.5) - v
                    first, stop = _span(A, B, C, u, dv, reach, left, right)
                    r = r_u = r_uu = np.float32(0.0)
                    for column in range(first, stop):
                        if last[row, column] <= pair:
                            continue
                        du = np.float32(column) + np.float32(0.5) - u
                        falloff = _falloff(A * du * du + B * du * dv + C * dv * dv)
                        full = o * falloff
                        if full < ALPHA_MIN:
                            continue
                        alpha = min(full, np.float32(ALPHA_MAX))
                        inverse = np.float32(1.0) / (np.float32(1.0) - alpha)
                        before = light[row - top, column - left] * inverse
                        weight, G = alpha * before, np.float32(0.0)
                        for channel in range(channels):
                            d = d_picture[row, column, channel]
                            G += d * features[g, channel]
                            d_feature[channel] += weight * d
                        d_alpha_here = before * G - behind[row - top, column - left] * inverse
                        behind[row - top, column - left] += weight * G
                        light[row - top, column - left] = before
                        if full > ALPHA_MAX:
                            continue
                        slope = d_alpha_here * falloff
                        r += slope
                        r_u += slope * du
                        r_uu += slope * du * du
                    s_o, s_u, s_uu = s_o + r, s_u + r_u, s_uu + r_uu
                    s_v, s_uv, s_vv = s_v + r * dv, s_uv + r_u * dv, s_vv + r * dv * dv
                rows[pair, 0], rows[pair, 1] = o * (a * s_u + B * s_v), o * (c * s_v + B * s_u)
                rows[pair, 2], rows[pair, 3] = np.float32(-0.5) * o * s_uu, -o * s_uv
                rows[pair, 4], rows[pair, 5] = np.float32(-0.5) * o * s_vv, s_o
                for channel in range(channels):
                    rows[pair, 6 + channel] = d_feature[channel]

    return backward


_FORWARD = {channels: _forward_for(channels) for channels in (3, 7)}
_BACKWARD = {channels: _backward_for(channels) for channels in (3, 7)}


def blend_forward(
    start: Array, ids: Array, pixels: Array, conics: Array, opacity: Array, boxes: Array, features: Array,
    picture: Array, transmittance: Array, last: Array,
) -> None:  # fmt: skip
    """Add up picture [h,w,c]; leave transmittance [h,w] (starts at 1) and, in last [h,w], the pair where a pixel finished.

    c is 3 or 7. The other arrays are those of `project_forward` and `sort_into_tiles`; features is [n,c].
    """
    _FORWARD[features.shape[1]](
        start, ids, pixels, conics, opacity, boxes, features, picture, transmittance, last
    )  # fmt: skip


def blend_backward(
    start: Array, ids: Array, pixels: Array, conics: Array, opacity: Array, boxes: Array, features: Array,
    transmittance: Array, last: Array, d_picture: Array, d_alpha: Array, rows: Array,
) -> None:  # fmt: skip
    """Fill rows [pairs, 6 + c]: gradients of u, v, three conic numbers, opacity, features, one row a pair.

    With G = d_picture . feature, the gradient of one splat's alpha is T G - behind / (1 - alpha), where `behind` adds
    up weight * G of all splats behind it: one number a pixel, however many channels.
    """
    _BACKWARD[features.shape[1]](
        start, ids, pixels, conics, opacity, boxes, features, transmittance, last, d_picture, d_alpha, rows
    )  # fmt: skip


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def add_rows(ids: Array, rows: Array, total: Array) -> None:
    """Add each pair's row to its Gaussian's: total [n, 6 + c]."""
    for pair in range(len(ids)):
        g = ids[pair]
        for column in range(rows.shape[1]):
            total[g, column] += rows[pair, column]
