"""A result folder becomes one collection in the scene.

    folder --result--> checked paths --ply, splat_frames--> arrays
                                         |
        uid (collection)                 v
          |- uid (root empty)      all parts are its children; move, turn and scale this one
          |- uid Splats            splats.add_splats
          |- uid Mesh              meshes.add_mesh
          '- uid Cameras           cameras.add_view_cameras, add_orbit_camera

Nothing stays half-imported: see `rollback`.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import bpy
from mathutils import Matrix

from .cameras import ImageDepth, add_orbit_camera, add_view_cameras
from .errors import FixItError
from .meshes import add_mesh
from .ply import read_splats
from .result import Result, read_result
from .rollback import all_or_nothing, data_blocks
from .splat_frames import as_seen, to_z_up
from .splats import add_splats, allow_transparency

Show = Literal["MESH", "SPLATS", "BOTH"]
NAME_LIMIT = 36  # Blender cuts names at 63 bytes; ours need room for what follows
FPS = 24
PART = "turntable_part_of"
"""Custom property of every data-block that an import made: the import's name."""


@dataclass(frozen=True)
class ImportOptions:
    """What an artist may choose."""

    show: Show = "MESH"
    """Mesh and splats stand in the same place: which is switched on. The other is a tick in the Outliner away."""
    true_size: bool = False
    """Scale and move the root so that the asset has its true size and place."""
    pack_images: bool = True
    """Put the pictures into the .blend file; otherwise keep paths, relative where the file has been saved."""
    splat_blur_px2: float = 0.3
    """Variance that 3DGS renderers add to every splat, pixels squared of the views; 0 for splats trained without."""
    image_depth: ImageDepth = "BACK"
    """Pictures behind the object or in front of it, seen through their cameras."""
    image_alpha: float = 0.5
    """How opaque the pictures are, 0 to 1."""
    orbit_frames: int = 96
    """Frames of one turn of the orbit camera."""
    set_up_scene: bool = False
    """Set colours (Standard view transform), resolution and frame range of the scene to the result's."""
    replace: bool = True
    """An earlier import of the same folder makes room for this one, which takes over its place."""


@dataclass(frozen=True)
class ImportedResult:
    """What now stands in the scene; references are valid until undo or file load."""

    name: str
    """Name of the collection; every part's name begins with it."""
    collection: bpy.types.Collection
    """Holds the sub-collections and the root."""
    root: bpy.types.Object
    """Parent of everything."""
    splats: bpy.types.Object | None
    """Splats, if the folder has them."""
    mesh: tuple[bpy.types.Object, ...]
    """Mesh objects, if the folder has them."""
    cameras: tuple[bpy.types.Object, ...]
    """One per view, in order."""
    orbit_camera: bpy.types.Object
    """The camera that turns."""
    notes: tuple[str, ...]
    """What an artist should know, one sentence each."""


def import_result(folder: Path, options: ImportOptions | None = None) -> ImportedResult:
    """Import a result folder into the current scene.

    Raises FixItError if something is wrong with the folder; the file is then as it was before.
    """
    chosen = options or ImportOptions()
    if bpy.context.mode != "OBJECT":
        raise FixItError(f"Blender is in {bpy.context.mode} mode", "Leave it (Tab) and import again.")
    if not 2 <= chosen.orbit_frames <= 100_000:
        raise FixItError(f"orbit_frames is {chosen.orbit_frames}, expected 2 to 100000", "Choose a number such as 96.")
    result = read_result(folder)
    scene = bpy.context.scene
    with all_or_nothing(scene):
        old = _earlier(result) if chosen.replace else None
        before = data_blocks()
        imported = _build(result, chosen, scene)
        for part in data_blocks() - before:
            part[PART] = imported.name
            if not part.name.startswith(imported.name):  # materials and textures of the glTF importer
                part.name = f"{imported.name} {part.name}"
        show_only(imported, chosen.show)
        if old is not None:  # last: nothing after it can fail
            imported = _take_over(old, imported)
    _select(imported.root)
    return imported


def to_true_size(imported: ImportedResult) -> Matrix:
    """Undo the normalisation by moving and scaling the root; returns what was done: the asset's world from ours."""
    size = 1 / imported.collection["turntable_normalisation_scale"]
    place = Matrix.Translation(imported.collection["turntable_normalisation_centre"]) @ Matrix.Scale(size, 4)
    imported.root.matrix_basis = place
    for camera in (*imported.cameras, imported.orbit_camera):
        camera.data.clip_start *= size  # in the scene's units, not in the camera's own
        camera.data.clip_end *= size
    return place


def _select(root: bpy.types.Object) -> None:
    for target in bpy.context.selected_objects:
        target.select_set(False)
    root.select_set(True)
    bpy.context.view_layer.objects.active = root


def _build(result: Result, options: ImportOptions, scene: bpy.types.Scene) -> ImportedResult:
    notes = list(result.notes)
    name = _free_name(result.uid)
    collection = _collection(name, scene.collection)
    root = bpy.data.objects.new(name, None)
    root.empty_display_type, root.empty_display_size = "PLAIN_AXES", 0.6
    collection.objects.link(root)
    _remember(collection, result)
    splats, mesh = None, ()
    if result.splats is not None:
        blur_m = options.splat_blur_px2**0.5 * result.views.pixel_m
        splats = _splats(result.splats, name, collection, root, blur_m, notes)
        allow_transparency(scene, notes)
    if result.mesh is not None:
        mesh = add_mesh(result.mesh, name, _collection(f"{name} Mesh", collection), root, notes)
    rig = _collection(f"{name} Cameras", collection)
    cameras = add_view_cameras(
        result.views, name, rig, root,
        pack=options.pack_images, depth=options.image_depth, alpha=options.image_alpha,
    )  # fmt: skip
    orbit_camera = add_orbit_camera(result.views, name, rig, root, options.orbit_frames)
    _scene_settings(scene, result, options, orbit_camera, notes)
    imported = ImportedResult(name, collection, root, splats, mesh, cameras, orbit_camera, tuple(notes))
    if options.true_size:
        to_true_size(imported)
    bpy.context.view_layer.update()
    return imported


def _splats(
    path: Path, name: str, collection: bpy.types.Collection, root: bpy.types.Object, blur_m: float, notes: list[str]
) -> bpy.types.Object:
    splats = read_splats(path)
    if not splats.says_axes:
        notes.append(f"{path.name} does not name its axes: taken as +Y down, as 3DGS trainers write.")
    target = add_splats(
        to_z_up(as_seen(splats, blur_m)), f"{name} Splats", _collection(f"{name} Splats", collection), notes
    )
    target.parent = root
    return target


def _collection(name: str, parent: bpy.types.Collection) -> bpy.types.Collection:
    collection = bpy.data.collections.new(name)
    parent.children.link(collection)
    return collection


def _free_name(uid: str) -> str:
    """Return the uid, or uid.001 and so on: the same number for every part of one import."""
    stem = uid[:NAME_LIMIT]
    taken = {block.name for block in (*bpy.data.collections, *bpy.data.objects)}
    candidates = (stem if number == 0 else f"{stem}.{number:03d}" for number in range(100_000))
    return next(name for name in candidates if name not in taken)


def _remember(collection: bpy.types.Collection, result: Result) -> None:
    """Keep where the asset came from and how it was made as custom properties."""
    known: dict[str, Any] = {
        "folder": str(result.folder), "uid": result.uid, "orbit": result.orbit,
        "normalisation_scale": result.scale, "normalisation_centre": list(result.centre),
    }  # fmt: skip
    for key, value in result.report.items():
        simple = isinstance(value, str | bool | float) or (isinstance(value, int) and abs(value) < 2**31)
        if value is not None and key not in known:
            known[key] = value if simple else json.dumps(value)  # nested, or too large for Blender's 32-bit integers
    for key, value in known.items():
        collection[f"turntable_{key}"[:63]] = value


def _scene_settings(
    scene: bpy.types.Scene, result: Result, options: ImportOptions, camera: bpy.types.Object, notes: list[str]
) -> None:
    if scene.camera is None:
        scene.camera = camera
    if options.set_up_scene:
        scene.view_settings.view_transform, scene.view_settings.look = "Standard", "None"
        scene.view_settings.exposure, scene.view_settings.gamma = 0.0, 1.0
        scene.render.resolution_x, scene.render.resolution_y = result.views.width, result.views.height
        scene.render.resolution_percentage = 100
        scene.frame_start, scene.frame_end = 1, options.orbit_frames
        scene.render.fps, scene.render.fps_base = FPS, 1.0
    elif scene.view_settings.view_transform != "Standard":
        notes.append(
            f"The scene's view transform is {scene.view_settings.view_transform}: choose Standard in "
            "Render > Color Management to see the colours as they were generated."
        )


def _earlier(result: Result) -> bpy.types.Collection | None:
    folder = str(result.folder)
    return next((c for c in bpy.context.scene.collection.children if c.get("turntable_folder") == folder), None)


def _take_over(old: bpy.types.Collection, imported: ImportedResult) -> ImportedResult:
    """Remove an earlier import of the same folder; its names, its root's place and its being watched go to the new one."""
    scene, name = bpy.context.scene, old.name
    earlier = next((target for target in old.objects if target.get(PART) == name and target.parent is None), None)
    if earlier is not None:
        imported.root.matrix_basis = earlier.matrix_basis.copy()
    if scene.camera is None or scene.camera.get(PART) == name:
        scene.camera = imported.orbit_camera
    bpy.data.batch_remove([*(part for part in old.all_objects if part.get(PART) == name), *old.children_recursive, old])
    while unused := [part for part in data_blocks() if part.get(PART) == name and not part.users]:
        bpy.data.batch_remove(unused)  # meshes free their materials, those their images
    for part in data_blocks():
        if part.get(PART) == imported.name:
            part[PART] = name
            part.name = name + part.name.removeprefix(imported.name)
    return replace(imported, name=name, notes=(*imported.notes, "Replaced the earlier import of this folder."))


def show_only(imported: ImportedResult, show: Show) -> None:
    """Tick the mesh or the splats and untick the other in every view layer: together they would cover each other.

    What has no twin is shown whatever is asked for.
    """
    if imported.splats is None or not imported.mesh:
        return
    for kind, target in (("MESH", imported.mesh[0]), ("SPLATS", imported.splats)):
        for view_layer in bpy.context.scene.view_layers:
            layer = view_layer.layer_collection.children[imported.collection.name]
            layer.children[target.users_collection[0].name].exclude = show not in (kind, "BOTH")
