"""Light into the scene, as render_farm/lights.py draws it. It belongs to the world and not to a camera: views agree.

uniform  a white sky all around: a convex white diffuse surface is exactly white
area     square lamps that face the origin, over a weak white sky
hdri     a picture of a sky, turned about +Z
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Vector

from render_farm.worker.events import WorkerError

MARK = "_turntable_farm_light"
"""Custom property of everything made here, by which the last orbit's light is found and removed. Not a name: assets
have names like ours."""


def set_light(scene: bpy.types.Scene, light: Mapping[str, Any], hdri_folder: Path | None) -> None:
    """Light the scene, and nothing else does: the light of the orbit before goes.

    Raises:
        WorkerError: an HDR picture is not there, or is another than the spec means.
    """
    _clear()
    strength = float(light["strength"])
    if light["kind"] == "hdri":
        scene.world = _picture_sky(
            hdri_path(light["name"], light["sha256"], hdri_folder), light["rotation_deg"], strength
        )
        return
    scene.world = _white_sky(strength * float(light.get("sky", 1.0)))
    for lamp in light.get("lamps", ()):
        scene.collection.objects.link(_lamp(lamp, strength))


def _clear() -> None:
    for collection in (bpy.data.objects, bpy.data.lights, bpy.data.worlds, bpy.data.images):
        for item in [item for item in collection if MARK in item]:
            collection.remove(item)


def _white_sky(strength: float) -> bpy.types.World:
    world = bpy.data.worlds.new("Turntable sky")
    world[MARK], world.use_nodes = True, True
    background = next(node for node in world.node_tree.nodes if node.type == "BACKGROUND")
    background.inputs["Color"].default_value = (1.0, 1.0, 1.0, 1.0)
    background.inputs["Strength"].default_value = strength
    return world


def _picture_sky(path: Path, rotation_deg: float, strength: float) -> bpy.types.World:
    world = _white_sky(strength)
    tree = world.node_tree
    background = next(node for node in tree.nodes if node.type == "BACKGROUND")
    picture = tree.nodes.new("ShaderNodeTexEnvironment")
    picture.image = bpy.data.images.load(str(path))
    picture.image[MARK] = True
    place = tree.nodes.new("ShaderNodeTexCoord")
    turn = tree.nodes.new("ShaderNodeMapping")
    # the direction that is looked up turns one way, the picture the other
    turn.inputs["Rotation"].default_value = (0.0, 0.0, -float(np.radians(rotation_deg)))
    tree.links.new(place.outputs["Generated"], turn.inputs["Vector"])
    tree.links.new(turn.outputs["Vector"], picture.inputs["Vector"])
    tree.links.new(picture.outputs["Color"], background.inputs["Color"])
    return world


def hdri_path(name: str, sha256: str, folder: Path | None) -> Path:
    """Return Blender's own sky of that name, or the file in the folder, whose bytes must be the ones that are meant.

    Raises:
        WorkerError: it is not there, or its hash differs.
    """
    if not sha256:
        path = Path(bpy.utils.resource_path("LOCAL")) / "datafiles" / "studiolights" / "world" / f"{name}.exr"
        if not path.is_file():
            raise WorkerError("internal", f"light {name!r}: this Blender carries no such sky, and without a sha256 no "
                              "file is meant")  # fmt: skip
        return path
    if folder is None or not (folder / name).is_file():
        place = "no folder of HDR files was given" if folder is None else f"it is not in {folder}"
        raise WorkerError("missing-file", f"light {name!r}: {place}; say where it lies with --hdri-folder")
    with (folder / name).open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise WorkerError("malformed", f"light {name!r}: expected the file of sha256 {sha256}, found {found}; it is "
                          "another picture")  # fmt: skip
    return folder / name


def _lamp(lamp: Mapping[str, float], strength: float) -> bpy.types.Object:
    data = bpy.data.lights.new("Turntable lamp", "AREA")
    data.shape = "SQUARE"
    data.size = lamp["size_m"]
    data.energy = lamp["power_w"] * strength
    data.color = blackbody(lamp["temperature_k"])
    azimuth, elevation = np.radians(lamp["azimuth_deg"]), np.radians(lamp["elevation_deg"])
    # azimuth 0 stands at -Y and grows counter-clockwise seen from above, as cameras do
    direction = Vector((np.cos(elevation) * np.sin(azimuth), -np.cos(elevation) * np.cos(azimuth), np.sin(elevation)))
    item = bpy.data.objects.new("Turntable lamp", data)
    data[MARK] = item[MARK] = True
    item.location = direction * lamp["distance_m"]
    item.rotation_euler = direction.to_track_quat("Z", "Y").to_euler()  # lamps shine along their -Z
    item.visible_camera = False  # between camera and object it would show
    return item


def blackbody(temperature_k: float) -> tuple[float, float, float]:
    """Return the linear Rec. 709 colour of a black body of 1667 to 25000 K, of luminance 1.

    Planckian locus in CIE xy by the cubic splines of Kim et al. (US patent 7024034).
    """
    t = 1000.0 / min(max(temperature_k, 1667.0), 25000.0)
    if temperature_k <= 4000:
        x = ((-0.2661239 * t - 0.2343589) * t + 0.8776956) * t + 0.179910
    else:
        x = ((-3.0258469 * t + 2.1070379) * t + 0.2226347) * t + 0.240390
    if temperature_k <= 2222:
        y = ((-1.1063814 * x - 1.34811020) * x + 2.18555832) * x - 0.20219683
    elif temperature_k <= 4000:
        y = ((-0.9549476 * x - 1.37418593) * x + 2.09137015) * x - 0.16748867
    else:
        y = ((3.0817580 * x - 5.87338670) * x + 3.75112997) * x - 0.37001483
    xyz = np.array([x / y, 1.0, (1 - x - y) / y])
    linear = np.clip(XYZ_TO_RGB @ xyz, 0.0, None)
    red, green, blue = (linear / (LUMINANCE @ linear)).tolist()
    return red, green, blue


XYZ_TO_RGB = np.array([[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560],
                       [0.0556434, -0.2040259, 1.0572252]])  # fmt: skip
LUMINANCE = np.array([0.2126729, 0.7151522, 0.0721750])
