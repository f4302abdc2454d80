"""Numba kernels, one thread a tile: front-to-back blending, and its gradient back to front.

Within a tile the loop runs Gaussian by Gaussian over the pixels that the ellipse's box covers, so nothing is evaluated
where it cannot be seen. The gradient needs no atomics: each (tile, Gaussian) pair writes a row of its own.
"""

import math
from typing import Any, no_type_check

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from engine.splats.rendering import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN

Array = NDArray[Any]
TILE_PX = 16


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


@njit(parallel=True, cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def blend_forward(
    start: Array, ids: Array, pixels: Array, conics: Array, opacity: Array, boxes: Array, features: Array,
    picture: Array, transmittance: Array, last: Array,
) -> None:  # fmt: skip
    """Add up picture [h,w,c]; leave transmittance [h,w] (starts at 1) and, in last [h,w], where each pixel finished."""
    height, width, channels = picture.shape
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
            for row in range(max(top, boxes[g, 2]), min(bottom, boxes[g, 3])):
                dv = np.float32(row) + np.float32(0.5) - v
                for column in range(max(left, boxes[g, 0]), min(right, boxes[g, 1])):
                    du = np.float32(column) + np.float32(0.5) - u
                    alpha = o * math.exp(-(A * du * du + B * du * dv + C * dv * dv))
                    if alpha < ALPHA_MIN or last[row, column] <= pair:
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


@njit(parallel=True, cache=True, fastmath=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def blend_backward(
    start: Array, ids: Array, pixels: Array, conics: Array, opacity: Array, boxes: Array, features: Array,
    transmittance: Array, last: Array, d_picture: Array, d_alpha: Array, rows: Array,
) -> None:  # fmt: skip
    """Fill rows [pairs, 6 + c]: gradients of u, v, three conic numbers, opacity, features, one row a pair.

    With G = d_picture . feature, the gradient of one splat's alpha is T G - behind / (1 - alpha), where `behind` adds
    up weight * G of all splats behind it: one number a pixel, however many channels.
    """
    height, width, channels = d_picture.shape
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
            d_u = d_v = d_A = d_B = d_C = d_o = np.float32(0.0)
            d_feature[:] = 0
            for row in range(max(top, boxes[g, 2]), min(bottom, boxes[g, 3])):
                dv = np.float32(row) + np.float32(0.5) - v
                for column in range(max(left, boxes[g, 0]), min(right, boxes[g, 1])):
                    if last[row, column] <= pair:
                        continue
                    du = np.float32(column) + np.float32(0.5) - u
                    falloff = math.exp(-(A * du * du + B * du * dv + C * dv * dv))
                    alpha = o * falloff
                    if alpha < ALPHA_MIN:
                        continue
                    clamped = alpha > ALPHA_MAX
                    alpha = min(alpha, np.float32(ALPHA_MAX))
                    inverse = np.float32(1.0) / (np.float32(1.0) - alpha)
                    before = light[row - top, column - left] * inverse
                    weight = alpha * before
                    G = np.float32(0.0)
                    for channel in range(channels):
                        d = d_picture[row, column, channel]
                        G += d * features[g, channel]
                        d_feature[channel] += weight * d
                    d_a = before * G - behind[row - top, column - left] * inverse
                    behind[row - top, column - left] += weight * G
                    light[row - top, column - left] = before
                    if clamped:
                        continue
                    d_o += d_a * falloff
                    d_power = -d_a * alpha
                    d_u -= d_power * (a * du + B * dv)
                    d_v -= d_power * (c * dv + B * du)
                    d_A += np.float32(0.5) * d_power * du * du
                    d_B += d_power * du * dv
                    d_C += np.float32(0.5) * d_power * dv * dv
            rows[pair, 0], rows[pair, 1], rows[pair, 2] = d_u, d_v, d_A
            rows[pair, 3], rows[pair, 4], rows[pair, 5] = d_B, d_C, d_o
            for channel in range(channels):
                rows[pair, 6 + channel] = d_feature[channel]


@njit(cache=True)
@no_type_check  # jaxtyping would wrap what numba compiles
def add_rows(ids: Array, rows: Array, total: Array) -> None:
    """Add each pair's row to its Gaussian's: total [n, 6 + c]."""
    for pair in range(len(ids)):
        g = ids[pair]
        for column in range(rows.shape[1]):
            total[g, column] += rows[pair, column]
