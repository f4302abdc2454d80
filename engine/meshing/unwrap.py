"""A mesh gets texture coordinates: xatlas cuts it into charts and packs them."""

import numpy as np
import xatlas
from jaxtyping import Float

from engine.files.types import MeshArrays
from engine.meshing.settings import MeshSettings
from engine.meshing.views import MeshingError

CHART_COST = 8.0  # xatlas' default is 2: fewer, larger charts, since voxel noise is no reason for a seam


def unwrap(mesh: MeshArrays, settings: MeshSettings) -> Float[np.ndarray, "f 3 2"]:
    """Return uv for every face corner, in [0, 1], origin at the texture's top left; raises MeshingError."""
    if len(mesh.faces) == 0:
        raise MeshingError("cannot unwrap a mesh without faces")
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    chart, pack = xatlas.ChartOptions(), xatlas.PackOptions()
    chart.max_cost = CHART_COST
    # half the padding on each of two neighbouring islands; what is left free is painted too (texture.py)
    pack.resolution, pack.padding, pack.bilinear = settings.texture_size, max(settings.padding_px // 2, 1), True
    atlas.generate(chart, pack)
    _, corners, uv = atlas[0]
    if len(corners) != len(mesh.faces):
        raise MeshingError(f"unwrapping lost faces: {len(mesh.faces)} went in, {len(corners)} came out")
    return np.clip(uv[corners].astype(np.float64), 0, 1)
