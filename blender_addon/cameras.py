"""The camera rig: one camera per generated view with its picture behind or before it, and one camera that orbits."""

import math
from pathlib import Path
from typing import Literal

import bpy
import numpy as np
from mathutils import Matrix

from .errors import FixItError
from .result import AGAIN, Views

SENSOR_MM = 24.0
"""Height of the sensor that pixels are laid on; any would do, this is full frame."""
BLENDER_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera axes: Blender's camera looks along -Z with +Y up."""
ImageDepth = Literal["FRONT", "BACK"]


def add_view_cameras(
    views: Views, name: str, collection: bpy.types.Collection, root: bpy.types.Object, *,
    pack: bool, depth: ImageDepth, alpha: float,
) -> tuple[bpy.types.Object, ...]:  # fmt: skip
    """Add one camera per view under `root`, named by its azimuth, its picture as background image."""
    cameras = []
    for index, path in enumerate(views.images):
        label = f"{name} View {index:02d} az {views.azimuth_deg[index] % 360:05.1f}"
        camera = _camera(views, label, collection, views.T_world_camera[index])
        camera.parent = root
        image = _image(path, f"{name} View {index:02d}", pack=pack)
        _show_behind(camera.data, image, depth, alpha)
        camera["turntable_azimuth_deg"] = float(views.azimuth_deg[index])
        cameras.append(camera)
    return tuple(cameras)


def _camera(views: Views, name: str, collection: bpy.types.Collection, pose: np.ndarray) -> bpy.types.Object:
    data = bpy.data.cameras.new(name)
    set_intrinsics(data, views)
    distance = float(np.linalg.norm(pose[:3, 3]))
    data.clip_start, data.clip_end = 0.01 * max(distance, 0.1), 100.0 * max(distance, 1.0)
    data.display_size = 0.12
    camera = bpy.data.objects.new(name, data)
    collection.objects.link(camera)
    camera.matrix_basis = Matrix((pose @ BLENDER_FROM_OPENCV).tolist())
    return camera


def set_intrinsics(data: bpy.types.Camera, views: Views) -> None:
    """Give a camera the views' focal length and principal point; true for pictures of the views' aspect.

    With a vertical fit Blender measures focal length and shift in sensor heights.
    """
    u, v = views.principal_px
    data.type, data.sensor_fit, data.lens_unit = "PERSP", "VERTICAL", "MILLIMETERS"
    data.sensor_height = SENSOR_MM
    data.sensor_width = SENSOR_MM * views.width / views.height
    data.lens = SENSOR_MM * views.focal_px / views.height
    data.shift_x = (views.width / 2 - u) / views.height
    data.shift_y = (v - views.height / 2) / views.height


def _image(path: Path, name: str, *, pack: bool) -> bpy.types.Image:
    image = bpy.data.images.load(str(path), check_existing=False)
    if not image.size[0]:
        raise FixItError(f"{path.name}: expected a picture, found none that Blender can read", AGAIN)
    image.name = name
    image.alpha_mode = "STRAIGHT"
    if pack:
        image.pack()
    elif bpy.data.filepath:
        image.filepath = bpy.path.relpath(str(path))
    return image


def _show_behind(data: bpy.types.Camera, image: bpy.types.Image, depth: ImageDepth, alpha: float) -> None:
    data.show_background_images = True
    background = data.background_images.new()
    background.image = image
    background.display_depth = depth
    background.alpha = alpha
    background.frame_method = "FIT"


def add_orbit_camera(
    views: Views, name: str, collection: bpy.types.Collection, root: bpy.types.Object, frames: int
) -> bpy.types.Object:
    """Add a camera that starts at the first view and turns once about +Z in `frames` frames, from frame 1 on.

    Frame `frames + 1` shows what frame 1 shows, so a film of `frames` frames loops without a stutter.
    """
    pivot = bpy.data.objects.new(f"{name} Orbit", None)
    pivot.empty_display_type, pivot.empty_display_size = "CIRCLE", 0.25
    collection.objects.link(pivot)
    pivot.parent = root
    camera = _camera(views, f"{name} Orbit Camera", collection, views.T_world_camera[0])
    camera.parent = pivot
    for frame, angle in ((1, 0.0), (frames + 1, 2 * math.pi)):
        pivot.rotation_euler[2] = angle
        pivot.keyframe_insert("rotation_euler", index=2, frame=frame)
    pivot.rotation_euler[2] = 0.0
    pivot.animation_data.action.name = f"{name} Orbit"
    for curve in _curves(pivot):
        curve.extrapolation = "LINEAR"  # goes on turning before and after
        for key in curve.keyframe_points:
            key.interpolation = "LINEAR"
    camera["turntable_frames"] = frames
    return camera


def _curves(target: bpy.types.Object) -> list[bpy.types.FCurve]:
    """Return the object's animation curves; Blender 5.0 moved them into slots."""
    action = target.animation_data.action
    if hasattr(action, "fcurves"):
        return list(action.fcurves)
    slot = target.animation_data.action_slot
    return [curve for layer in action.layers for strip in layer.strips for curve in strip.channelbag(slot).fcurves]
