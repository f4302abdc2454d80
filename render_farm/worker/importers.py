"""Model files into Blender: path and suffix in, objects in the session's scene out; then which of them are visible.

One table, keyed on Blender's version where an operator was renamed. Axes and units are the importers' own: everything
ends +Z up in metres, except that PLY and STL, which carry neither, are taken as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy
import numpy as np

from render_farm.worker.events import WorkerError

NOT_RENDERED = frozenset({"ARMATURE", "CAMERA", "LATTICE", "LIGHT", "LIGHT_PROBE", "SPEAKER"})
"""Types of objects that never show. They stay in the file: visible ones may hang on them."""


@dataclass(frozen=True)
class Importer:
    """One import operator with our settings; settings that this Blender's operator lacks are left out."""

    operator: str
    """As in bpy.ops, 'wm.obj_import'."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments besides filepath."""
    since: tuple[int, int, int] = (0, 0, 0)
    """First Blender version that has it."""
    until: tuple[int, int, int] = (99, 0, 0)
    """First Blender version that no longer has it."""


GLTF = Importer("import_scene.gltf", {"disable_bone_shape": True, "import_webp_texture": True})
USD = Importer("wm.usd_import", {
    "create_world_material": False, "set_frame_range": True, "import_visible_only": True, "validate_meshes": False,
})  # fmt: skip
OLD_FBX = Importer("import_scene.fbx", {"use_image_search": True}, until=(5, 0, 0))
NEW_FBX = Importer("wm.fbx_import", since=(5, 0, 0))
IMPORTERS: dict[str, tuple[Importer, ...]] = {
    ".glb": (GLTF,),
    ".gltf": (GLTF,),
    ".obj": (Importer("wm.obj_import", {"validate_meshes": False}),),
    ".ply": (Importer("wm.ply_import"),),
    ".stl": (Importer("wm.stl_import", {"use_mesh_validate": False}),),
    ".usd": (USD,),
    ".usda": (USD,),
    ".usdc": (USD,),
    ".usdz": (USD,),
    ".fbx": (OLD_FBX, NEW_FBX),
    ".abc": (Importer("wm.alembic_import", {"as_background_job": False, "validate_meshes": False}),),
    ".dae": (Importer("wm.collada_import", {"import_units": False}, until=(5, 0, 0)),),
}
"""By suffix; .blend is opened instead."""


def import_asset(path: str, suffix: str) -> None:
    """Read a model into the empty session.

    Raises:
        WorkerError: this Blender has no importer, or its importer refused.
    """
    try:
        if suffix == ".blend":
            _open_blend(path)
        else:
            _operator(suffix, path)(filepath=path)
            _check_meshes()
            if suffix == ".fbx":
                _part_bones()
    except RuntimeError as error:
        raise WorkerError(
            "import-failed", f"Blender cannot import it ({_last_line(error)}); export it again"
        ) from error


def _operator(suffix: str, path: str) -> Callable[..., Any]:
    version = tuple(bpy.app.version)
    for importer in IMPORTERS[suffix]:
        if importer.since <= version < importer.until:
            module, name = importer.operator.split(".")
            operator = getattr(getattr(bpy.ops, module), name)
            known = operator.get_rna_type().properties.keys()
            settings = {key: value for key, value in importer.settings.items() if key in known}
            return lambda filepath: operator(filepath=filepath, **settings)
    raise WorkerError("unsupported-format", f"Blender {bpy.app.version_string} reads no {suffix} files any more: "
                      f"convert {Path(path).name} to .glb")  # fmt: skip


def _open_blend(path: str) -> None:
    """Open a .blend with everything in it that could run switched off: text blocks, drivers, handlers."""
    bpy.context.preferences.filepaths.use_scripts_auto_execute = False
    bpy.ops.wm.open_mainfile(filepath=path, load_ui=False, use_scripts=False)
    if bpy.context.scene is None or not bpy.data.filepath:
        raise WorkerError("import-failed", "Blender cannot open it: the file holds no scene")


def _check_meshes() -> None:
    """Refuse points that are no numbers, then let Blender repair the rest: its own repair would hide them at 0."""
    for mesh in bpy.data.meshes:
        points = np.empty(len(mesh.vertices) * 3, np.float32)
        mesh.vertices.foreach_get("co", points)
        if not np.isfinite(points).all():
            raise WorkerError("not-finite", f"mesh {mesh.name!r} has vertices that are not finite numbers; repair it")
        mesh.validate()


def _part_bones() -> None:
    """Let bones move away from their parents: FBX's importer joins them, and joined bones ignore their own movement."""
    for rig in [item for item in bpy.data.objects if item.type == "ARMATURE" and item.visible_get()]:
        if any(bone.use_connect for bone in rig.data.bones):
            bpy.context.view_layer.objects.active = rig
            bpy.ops.object.mode_set(mode="EDIT")
            for bone in rig.data.edit_bones:
                bone.use_connect = False
            bpy.ops.object.mode_set(mode="OBJECT")


def drop_helpers() -> tuple[dict[str, int], list[str]]:
    """Switch off every light of the file, and what helps its own render without being seen (shadow catchers, holdouts,
    what cameras do not see), inside instanced collections too; return what is left out as facts and as sentences."""
    kinds = [item.type for item in bpy.data.objects]
    unseen = []
    for item in bpy.data.objects:
        if item.type in {"LIGHT", "LIGHT_PROBE"} or item.hide_viewport:
            item.hide_render = True  # what only a render would show cannot be measured: both show the same
        elif item.type not in NOT_RENDERED and _is_helper(item) and not item.hide_render:
            item.hide_render = True
            unseen.append(f"object {item.name!r} is left out: it is made not to be seen")
    for collection in bpy.data.collections:
        collection.hide_render |= collection.hide_viewport
    for light in bpy.data.lights:
        light.energy = 0.0
    return {"lights_dropped": kinds.count("LIGHT"), "cameras_dropped": kinds.count("CAMERA")}, unseen


def _is_helper(item: bpy.types.Object) -> bool:
    return bool(item.is_shadow_catcher or item.is_holdout or not item.visible_camera)


def visible_objects(scene: bpy.types.Scene, view_layer: bpy.types.ViewLayer) -> list[bpy.types.Object]:
    """Return what a user would both see and render: not hidden, not excluded, no lights, cameras or bone shapes."""
    shapes = {
        bone.custom_shape
        for owner in bpy.data.objects
        if owner.type == "ARMATURE" and owner.pose
        for bone in owner.pose.bones
        if bone.custom_shape
    }
    rendered = _rendered(scene.collection, view_layer.layer_collection)
    return [
        item
        for item in scene.objects
        if item.type not in NOT_RENDERED
        and item in rendered
        and item not in shapes
        and not item.hide_render
        and item.visible_get(view_layer=view_layer)
    ]


def _rendered(collection: bpy.types.Collection, layer: bpy.types.LayerCollection) -> set[bpy.types.Object]:
    """Objects of collections that are rendered; an object in any such collection is."""
    found = set(collection.objects)
    for child in layer.children:
        if not child.exclude and not child.collection.hide_render:
            found |= _rendered(child.collection, child)
    return found


def _last_line(error: Exception) -> str:
    """What went wrong, without Blender's own place in its code, which it adds to an importer's traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Location:")]
    return (lines[-1] if lines else type(error).__name__).removeprefix("Error: ")
