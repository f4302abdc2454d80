"""Smoothing and decimation with pymeshlab, as a process of its own: `python -m engine.meshing.clean_child IN OUT`.

pymeshlab shares symbols with bpy and threads with torch, so neither may be in its process. IN is an npz of vertices
[v, 3], faces [f, 3], target_faces and smoothing_steps; OUT becomes one of vertices and faces.
"""

import logging
import sys

import numpy as np
from jaxtyping import Float, Int

from engine.meshing.surface import is_closed

log = logging.getLogger("engine.meshing.clean_child")


def clean(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], target_faces: int, smoothing_steps: int
) -> tuple[Float[np.ndarray, "v2 3"], Int[np.ndarray, "f2 3"]]:
    """Smooth, then decimate to the smallest of 1, 2 and 4 times the target that stays closed; else only smooth."""
    import pymeshlab

    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.add_mesh(pymeshlab.Mesh(vertices, faces))
    if smoothing_steps > 0:
        # Taubin 1995: a shrinking and a slightly larger growing step, so that thin parts keep their width
        meshes.apply_coord_taubin_smoothing(lambda_=0.5, mu=-0.53, stepsmoothnum=smoothing_steps)
    smooth = meshes.current_mesh().vertex_matrix(), meshes.current_mesh().face_matrix()
    for target in (target_faces, 2 * target_faces, 4 * target_faces):
        if target >= len(smooth[1]):
            break
        meshes.clear()
        meshes.add_mesh(pymeshlab.Mesh(*smooth))
        meshes.meshing_decimation_quadric_edge_collapse(
            targetfacenum=target, preservetopology=True, preservenormal=True, planarquadric=True, autoclean=True
        )
        result = meshes.current_mesh().vertex_matrix(), meshes.current_mesh().face_matrix()
        if is_closed(*result):
            return result
        log.warning("decimation to %d faces opened the mesh: trying more", target)
    return smooth


def main() -> None:
    """Read IN, clean, write OUT."""
    with np.load(sys.argv[1]) as data:
        arrays = data["vertices"], data["faces"], int(data["target_faces"]), int(data["smoothing_steps"])
    vertices, faces = clean(*arrays)
    np.savez(sys.argv[2], vertices=vertices, faces=faces.astype(np.int64))


if __name__ == "__main__":
    main()
