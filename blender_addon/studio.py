"""A small photo studio around a normalised object: world light, three lamps, a floor that only catches shadows."""

import math

import bpy
import numpy as np
from mathutils import Matrix, Vector

from .scene import ImportedResult

FLOOR_GAP = 0.002
"""The floor lies this much below the lowest point, so that feet do not sink in."""
LAMPS = {
    # name: azimuth (as the orbit counts it), elevation, distance, size, watts, colour
    "Key": (-40.0, 48.0, 3.0, 1.6, 74.0, (1.0, 0.95, 0.88)),
    "Fill": (60.0, 25.0, 3.2, 2.4, 22.0, (0.88, 0.94, 1.0)),
    "Rim": (165.0, 40.0, 3.0, 1.2, 38.0, (1.0, 1.0, 1.0)),
}
WORLD = (0.62, 0.60, 0.58)
"""Linear; warm grey, bright enough that shadows keep their colour."""


def build_studio(scene: bpy.types.Scene, camera_azimuth_deg: float, imported: ImportedResult) -> bpy.types.Object:
    """Add lamps that stand relative to the camera's azimuth, a world, and a floor below the asset; return the floor."""
    studio = bpy.data.collections.new("Studio")
    scene.collection.children.link(studio)
    for name, (azimuth, elevation, distance, size, watts, colour) in LAMPS.items():
        lamp = bpy.data.lights.new(name, "AREA")
        lamp.shape, lamp.size, lamp.energy, lamp.color = "DISK", size, watts, colour
        lamp.use_shadow = name != "Rim"  # it shines towards the camera: its shadow would lie before the object
        target = bpy.data.objects.new(name, lamp)
        target.location = _place(azimuth + camera_azimuth_deg, elevation, distance)
        target.rotation_euler = Vector(target.location).to_track_quat("Z", "Y").to_euler()
        studio.objects.link(target)
    world = bpy.data.worlds.new("Studio")
    world.use_nodes = True
    background = world.node_tree.nodes["Background"]
    background.inputs["Color"].default_value, background.inputs["Strength"].default_value = (*WORLD, 1.0), 0.52
    scene.world = world
    return _add_floor(studio, _lowest(imported) - FLOOR_GAP)


def _lowest(imported: ImportedResult) -> float:
    """Return the height of the asset's lowest point, of the mesh where there is one: splats may have stray outliers."""
    targets = imported.mesh or tuple(part for part in (imported.splats,) if part is not None)
    return min(float(world_points(target)[:, 2].min()) for target in targets)


def world_points(target: bpy.types.Object) -> np.ndarray:
    """Return the world places [n, 3] of an object's vertices or points, before modifiers."""
    mesh = target.type == "MESH"
    points = target.data.vertices if mesh else target.data.points
    local = np.empty(len(points) * 3, np.float32)
    points.foreach_get("co", local)
    matrix = np.array(target.matrix_world)
    return local.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def _place(azimuth_deg: float, elevation_deg: float, distance: float) -> tuple[float, float, float]:
    a, e = math.radians(azimuth_deg), math.radians(elevation_deg)
    return (distance * math.cos(e) * math.sin(a), -distance * math.cos(e) * math.cos(a), distance * math.sin(e))


def _add_floor(studio: bpy.types.Collection, height: float) -> bpy.types.Object:
    mesh = bpy.data.meshes.new("Floor")
    side = 3.0  # further away no shadow falls, and every floor pixel costs time
    corners = [(x, y, 0.0) for x, y in ((-side, -side), (side, -side), (side, side), (-side, side))]
    mesh.from_pydata(corners, [], [(0, 1, 2, 3)])
    floor = bpy.data.objects.new("Floor", mesh)
    floor.location.z = height
    floor.is_shadow_catcher = True
    studio.objects.link(floor)
    return floor


def enlarge_studio(place: Matrix) -> None:
    """Move and enlarge lamps and floor with the asset (see `scene.to_true_size`); pictures stay as they were."""
    size = place.to_scale()[0]
    for target in bpy.data.collections["Studio"].objects:
        target.location = place @ target.location
        if target.type == "LIGHT":
            target.data.size *= size
            target.data.energy *= size**2  # watts: the same light per area from further away
        else:
            target.scale *= size


def _denoise(cycles: bpy.types.PropertyGroup) -> None:
    """Denoise where this Blender can: Debian builds it without Open Image Denoise, and the picture stays grainy."""
    try:
        cycles.denoiser = "OPENIMAGEDENOISE"
    except TypeError:  # how Blender refuses a choice that this build lacks
        cycles.use_denoising = False
        return
    cycles.use_denoising = True
    cycles.denoising_prefilter, cycles.denoising_quality = "FAST", "FAST"  # as good as default here, half the time


def set_up_render(scene: bpy.types.Scene, size: int, samples: int, threads: int) -> None:
    """Cycles on the CPU, Standard colours, transparent film, square pictures."""
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    cycles.device, cycles.samples = "CPU", samples
    cycles.use_adaptive_sampling, cycles.adaptive_threshold, cycles.adaptive_min_samples = True, 0.02, 16
    _denoise(cycles)
    cycles.max_bounces, cycles.seed = 4, 0
    render.film_transparent = True
    render.resolution_x = render.resolution_y = size
    render.resolution_percentage = 100
    render.threads_mode, render.threads = "FIXED", threads
    scene.view_settings.view_transform, scene.view_settings.look = "Standard", "None"
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    render.image_settings.color_depth = "8"
