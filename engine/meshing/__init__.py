"""Meshing: posed depth maps or outlines become a closed mesh, views become its texture.

reconstruct   the walk: views, carve, complete, or outlines; surface, clean (a child process with pymeshlab)
texture       unwrap and bake
rasterize     the mesh as the cameras see it
agreement     how well a mesh fits the views it came from
"""

from engine.meshing.agreement import Agreement, view_agreement
from engine.meshing.rasterize import ViewBuffers, draw_mesh, rasterize_mesh
from engine.meshing.reconstruct import mesh_from_depth, mesh_from_outlines
from engine.meshing.settings import FROM_SPLATS, MeshSettings, Progress, Surface
from engine.meshing.surface import is_closed
from engine.meshing.texture import texture_from_views
from engine.meshing.views import MeshingError

__all__ = [
    "FROM_SPLATS",
    "Agreement",
    "MeshSettings",
    "MeshingError",
    "Progress",
    "Surface",
    "ViewBuffers",
    "draw_mesh",
    "is_closed",
    "mesh_from_depth",
    "mesh_from_outlines",
    "rasterize_mesh",
    "texture_from_views",
    "view_agreement",
]
