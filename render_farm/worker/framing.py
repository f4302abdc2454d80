"""The part of a picture that an object can touch: what lies outside is neither sampled nor denoised.

Rays into the empty sky are nearly half of the work on an object that fills a third of the picture.

    surfaces -> points in the unit frame, thinned to one a cell -> projected for each view -> a rectangle, with a margin
"""

from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np

from render_farm.job import Job, OrbitJob, ViewJob
from render_farm.worker.shapes import Shape, has_faceless

CELLS = 256
"""A side of the unit box: points are thinned to one for each cell that holds any, so that millions cost no more."""
CELL_M = 1.0 / CELLS
MARGIN_PX = 3.0
"""Half the width of the pixel filter, rounding to whole pixels, and one more."""
NEAR_M = 0.02
"""An object closer than this to the camera may be anywhere in the picture."""


@dataclass(frozen=True)
class Outline:
    """Where surfaces are."""

    points: Any
    """[n, 3] corners of cells in the unit frame; None where the extent is not known and whole pictures are rendered."""


def outline(scene: bpy.types.Scene, shapes: list[Shape], normalise: Any) -> Outline:
    """Collect the cells that the surfaces' points lie in. Triangles lie between their points, in any projection.

    Args:
        scene: it must hold nothing that renders without faces (hair, volumes, points), nor displacement.
        shapes: every surface.
        normalise: [4, 4] from the shapes' frame to the unit frame.
    """
    if _unknown(scene, shapes):
        return Outline(None)
    cells = np.concatenate([_cells(shape, normalise) for shape in shapes])
    return Outline(np.unique(cells, axis=0) * CELL_M)


def _cells(shape: Shape, normalise: Any) -> Any:
    matrix = normalise @ shape.matrix
    points = shape.points @ matrix[:3, :3].T + matrix[:3, 3]
    return np.unique(np.round(points / CELL_M).astype(np.int32), axis=0)


def _unknown(scene: bpy.types.Scene, shapes: list[Shape]) -> bool:
    return has_faceless(scene.view_layers[0].depsgraph) or any(
        material.displacement_method != "BUMP" for shape in shapes for material in shape.materials
    )


def rectangle(found: Outline, job: Job, orbit: OrbitJob, view: ViewJob) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom in whole pixels (right and bottom exclusive) of what may show."""
    whole = (0, 0, job.width, job.height)
    if found.points is None:
        return whole
    matrix = np.linalg.inv(np.array(view.matrix_world, np.float64))
    seen = found.points @ matrix[:3, :3].T + matrix[:3, 3]  # [n, 3], Blender's camera: -Z forward, +Y up
    depth = -seen[:, 2]
    if depth.min() < NEAR_M:
        return whole
    slack = orbit.focal_px * CELL_M * np.sqrt(3) / 2 / (depth - CELL_M) + MARGIN_PX  # [n] pixels a point may be off
    u = orbit.principal_px[0] + orbit.focal_px * seen[:, 0] / depth
    v = orbit.principal_px[1] - orbit.focal_px * seen[:, 1] / depth
    left, right = _within((u - slack).min(), (u + slack).max(), job.width)
    top, bottom = _within((v - slack).min(), (v + slack).max(), job.height)
    return left, top, right, bottom


def _within(low: float, high: float, size: int) -> tuple[int, int]:
    """Whole pixels inside the picture, at least one: an object beside the picture leaves an empty one."""
    first = min(max(int(np.floor(low)), 0), size - 1)
    return first, max(min(int(np.ceil(high)), size), first + 1)


def restrict(scene: bpy.types.Scene, job: Job, part: tuple[int, int, int, int]) -> None:
    """Render only this part of the picture; the file keeps its full size, with nothing elsewhere."""
    left, top, right, bottom = part
    render = scene.render
    render.use_border, render.use_crop_to_border = part != (0, 0, job.width, job.height), False
    render.border_min_x, render.border_max_x = left / job.width, right / job.width
    render.border_min_y, render.border_max_y = 1 - bottom / job.height, 1 - top / job.height
