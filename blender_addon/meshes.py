"""The textured mesh: a checked .glb goes in, mesh objects in our frame come out."""

from pathlib import Path

import bpy
import numpy as np

from .errors import FixItError


def add_mesh(
    path: Path, name: str, collection: bpy.types.Collection, root: bpy.types.Object, notes: list[str]
) -> tuple[bpy.types.Object, ...]:
    """Import a glTF file below `root` and keep its meshes. Blender's importer turns +Y up into +Z up."""
    if not hasattr(bpy.types, "IMPORT_SCENE_OT_gltf"):
        raise FixItError("Blender's glTF importer is off", "Enable `glTF 2.0 format` in Preferences > Add-ons.")
    before = set(bpy.data.objects)
    try:
        bpy.ops.import_scene.gltf(filepath=str(path))
    except RuntimeError as error:  # operators report their errors so
        raise FixItError(
            f"{path.name}: Blender's glTF importer refused it ({_cause(error)})",
            "Make the mesh again (--from meshing), or remove mesh.glb to import without it.",
        ) from None
    bpy.context.view_layer.update()
    imported = [target for target in bpy.data.objects if target not in before]
    meshes = sorted((target for target in imported if target.type == "MESH"), key=lambda target: target.name)
    if not meshes:
        raise FixItError(f"{path.name}: expected a mesh, found none", "Make the mesh again (--from meshing).")
    places = [target.matrix_world.copy() for target in meshes]
    for index, (target, place) in enumerate(zip(meshes, places, strict=True)):
        _adopt(target, collection, root)
        target.matrix_basis = place
        target.name = target.data.name = f"{name} Mesh" if len(meshes) == 1 else f"{name} Mesh {index:02d}"
    bpy.data.batch_remove([target for target in imported if target.type != "MESH"])
    _check_size(meshes, places, notes)
    return tuple(meshes)


def _cause(error: RuntimeError) -> str:
    """Return the last line of the traceback that Blender's operators put into their errors."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next((line for line in reversed(lines) if line and not line.startswith("Location:")), "no reason given")


def _adopt(target: bpy.types.Object, collection: bpy.types.Collection, root: bpy.types.Object) -> None:
    for owner in list(target.users_collection):
        owner.objects.unlink(target)
    collection.objects.link(target)
    target.parent = root
    target.matrix_parent_inverse.identity()


def _check_size(meshes: list[bpy.types.Object], places: list, notes: list[str]) -> None:
    corners = [place @ vertex.co for target, place in zip(meshes, places, strict=True) for vertex in _corners(target)]
    longest = float(np.ptp(np.array(corners), axis=0).max())
    if not 0.5 <= longest <= 2.0:
        notes.append(f"The mesh's longest side is {longest:.3g}, expected about 1: it may not lie on the splats.")


def _corners(target: bpy.types.Object) -> list:
    """Return the extreme vertices along each axis (at most six), enough for a bounding box of unturned objects."""
    points = np.empty(len(target.data.vertices) * 3, np.float32)
    target.data.vertices.foreach_get("co", points)
    points = points.reshape(-1, 3)
    return [target.data.vertices[int(index)] for index in (*points.argmin(0), *points.argmax(0))]
