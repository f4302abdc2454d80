"""Files: path in, typed value out. Numpy only, no torch, so that the render farm can use it.

orbit_folder, orbit_shard   the orbit on disk (orbit_json and orbit_codec are what they share)
ply, glb, glb_reader        splats and meshes
images, preview, video      pictures
atomic                      whole files or none
"""

from engine.files.atomic import atomic_file, atomic_path, clear_partials, write_bytes
from engine.files.colour import linear_from_srgb, srgb_from_linear
from engine.files.glb import vertex_normals, write_mesh
from engine.files.glb_reader import read_mesh
from engine.files.orbit_folder import find_orbit, load_document, read_orbit, validate_orbit, write_orbit
from engine.files.orbit_json import OrbitDocument
from engine.files.orbit_shard import iter_shard, validate_shard, write_shard
from engine.files.ply import read_splats, rotate_splats, write_splats
from engine.files.preview import composite, contact_sheet, grid, to_bytes, write_png, write_preview
from engine.files.types import MeshArrays, Normalisation, OrbitImages, SplatArrays
from engine.files.video import read_video, write_turntable

__all__ = [
    "MeshArrays",
    "Normalisation",
    "OrbitDocument",
    "OrbitImages",
    "SplatArrays",
    "atomic_file",
    "atomic_path",
    "clear_partials",
    "composite",
    "contact_sheet",
    "find_orbit",
    "grid",
    "iter_shard",
    "linear_from_srgb",
    "load_document",
    "read_mesh",
    "read_orbit",
    "read_splats",
    "read_video",
    "rotate_splats",
    "srgb_from_linear",
    "to_bytes",
    "validate_orbit",
    "validate_shard",
    "vertex_normals",
    "write_bytes",
    "write_mesh",
    "write_orbit",
    "write_png",
    "write_preview",
    "write_shard",
    "write_splats",
    "write_turntable",
]
