"""The baseline of bm_farm.py: one object as the scripts that people publish render it, in a process of its own.

    python tests/benchmarks/plain_render.py JOB.json

Blender's factory settings but for what such scripts set: Cycles, samples, threads, size, transparent film, Standard,
a white world; one render call and one PNG a view. So the denoiser is on (Open Image Denoise, albedo and normal guides,
accurate prefilter, high quality), adaptive sampling too, 8-bit pictures are dithered and nothing is kept between views.

The job: `object`, `out` (a folder), `size`, `samples`, `threads`, `fov_deg`, `poses` (4x4 of Blender's camera object).
Writes OUT/00.png ... and OUT/times.json: wall and CPU seconds of each view.
"""

import json
import math
import os
import sys
import time
from pathlib import Path

import bpy
from mathutils import Matrix, Vector


def normalise() -> None:
    """Centre the box of all meshes and scale its longest side to 1, by the objects without a parent."""
    bpy.context.view_layer.update()
    meshes = [item for item in bpy.context.scene.objects if item.type == "MESH"]
    corners = [item.matrix_world @ Vector(corner) for item in meshes for corner in item.bound_box]
    low = Vector(min(corner[k] for corner in corners) for k in range(3))
    high = Vector(max(corner[k] for corner in corners) for k in range(3))
    place = Matrix.Scale(1.0 / max(high - low), 4) @ Matrix.Translation(-(low + high) / 2)
    for item in bpy.context.scene.objects:
        if item.parent is None:
            item.matrix_world = place @ item.matrix_world
    bpy.context.view_layer.update()


def set_up(job: dict) -> bpy.types.Object:
    """Set what such scripts set, and return the camera."""
    scene = bpy.context.scene
    render = scene.render
    render.engine = "CYCLES"
    scene.cycles.samples = job["samples"]
    render.threads_mode, render.threads = "FIXED", job["threads"]
    render.resolution_x = render.resolution_y = job["size"]
    render.resolution_percentage = 100
    render.film_transparent = True
    render.image_settings.file_format, render.image_settings.color_mode = "PNG", "RGBA"
    scene.view_settings.view_transform = "Standard"
    scene.world = bpy.data.worlds.new("World")
    scene.world.use_nodes = True
    background = next(node for node in scene.world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    data = bpy.data.cameras.new("Camera")
    data.angle = math.radians(job["fov_deg"])
    camera = bpy.data.objects.new("Camera", data)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def main(job: dict) -> None:
    """Render one object."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=job["object"])
    normalise()
    camera = set_up(job)
    views = []
    for index, pose in enumerate(job["poses"]):
        wall_s, cpu_s = time.monotonic(), time.process_time()
        camera.matrix_world = Matrix(pose)
        bpy.context.scene.render.filepath = str(Path(job["out"]) / f"{index:02d}.png")
        bpy.ops.render.render(write_still=True)
        views.append({"wall_s": time.monotonic() - wall_s, "cpu_s": time.process_time() - cpu_s})
    (Path(job["out"]) / "times.json").write_text(json.dumps(views))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    sys.stdout.flush()
    os._exit(0)  # bpy may hang in its own clean-up
