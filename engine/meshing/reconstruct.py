"""Posed depth maps, or outlines alone, become a closed mesh.

depth, alpha -> views (planes, silhouettes) -> carve (signed distance) -> complete (what nobody saw) \\
alpha -> outlines (signed distance to their hull) ----------------------------------------------------> surface
surface (marching cubes) -> clean (smooth, decimate) -> MeshArrays
"""

import logging

import numpy as np
from jaxtyping import Float, UInt8

from engine.files.types import MeshArrays
from engine.geometry import Orbit
from engine.meshing.carve import Volume, carve
from engine.meshing.clean import clean_surface
from engine.meshing.complete import complete
from engine.meshing.outlines import hull
from engine.meshing.settings import MeshSettings, Progress
from engine.meshing.surface import extract_surface
from engine.meshing.threads import use_threads
from engine.meshing.views import check_inputs, view_fields

log = logging.getLogger(__name__)


def mesh_from_depth(
    orbit: Orbit,
    depth_m: Float[np.ndarray, "n h w"],
    alpha: Float[np.ndarray, "n h w"] | UInt8[np.ndarray, "n h w"],
    *,
    given_view: int | None = None,
    settings: MeshSettings | None = None,
    progress: Progress | None = None,
) -> MeshArrays:
    """Fuse posed depth maps into one watertight mesh without texture.

    Args:
        orbit: the cameras, one for each depth map; at least 3.
        depth_m: planar camera z in metres, 0 where nothing is known.
        alpha: 0 to 1, or 0 to 255 as uint8; soft edges are used below the pixel.
        given_view: the view that is a given picture, the others being generated: what it alone sees through is empty.
        settings: see MeshSettings.
        progress: called with a stage and the share done.

    Returns:
        A closed, outward-facing mesh in the world of the cameras, metres.

    Raises:
        MeshingError: inputs that cannot become a mesh; MissingDependencyError: pymeshlab is missing.
    """
    alpha, settings, report = _checked(orbit, depth_m, alpha, settings, progress)
    report("views", 0.0)
    fields = view_fields(orbit, depth_m, alpha, settings.alpha_level, settings.threads)
    report("carve", 0.1)
    volume = carve(fields, settings, given_view)
    report("complete", 0.3)
    return _surface(volume, complete(volume, settings), settings, report)


def mesh_from_outlines(
    orbit: Orbit,
    alpha: Float[np.ndarray, "n h w"] | UInt8[np.ndarray, "n h w"],
    *,
    given_view: int | None = None,
    settings: MeshSettings | None = None,
    progress: Progress | None = None,
) -> MeshArrays:
    """Return the hull of the views' outlines as one watertight mesh without texture; see `outlines.hull`.

    Arguments, result and errors are those of `mesh_from_depth`.
    """
    alpha, settings, report = _checked(orbit, None, alpha, settings, progress)
    report("outlines", 0.0)
    volume = hull(orbit, alpha, settings, given_view)
    return _surface(volume, volume.distance_m, settings, report)


def _checked(
    orbit: Orbit,
    depth_m: Float[np.ndarray, "..."] | None,
    alpha: Float[np.ndarray, "..."] | UInt8[np.ndarray, "..."],
    settings: MeshSettings | None,
    progress: Progress | None,
) -> tuple[Float[np.ndarray, "n h w"], MeshSettings, Progress]:
    """Return alpha as shares, and what else is used where nothing is given; set the threads."""
    settings = settings or MeshSettings()
    alpha = alpha / np.float32(255) if alpha.dtype == np.uint8 else alpha
    check_inputs(orbit, depth_m, alpha)
    use_threads(settings.threads)
    return alpha, settings, progress or (lambda stage, share: None)


def _surface(
    volume: Volume, distance_m: Float[np.ndarray, "x y z"], settings: MeshSettings, report: Progress
) -> MeshArrays:
    report("surface", 0.4)
    vertices, faces = extract_surface(volume, distance_m)
    log.info("surface of %d faces from %s voxels of %.4f m", len(faces), distance_m.shape, volume.voxel_m)
    report("clean", 0.5)
    vertices, faces = clean_surface(vertices, faces, settings)
    report("clean", 1.0)
    return MeshArrays(vertices, faces)
