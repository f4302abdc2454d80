"""The imported scene, asked in a child process; engine.geometry says what it ought to be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.geometry import Orbit, frames, project

pytestmark = pytest.mark.blender
BOXES = [  # as in conftest: lower corner, upper corner, and their colours red, green, blue
    ((-0.5, -0.3, -0.2), (0.5, -0.1, -0.1), 0),
    ((-0.5, -0.1, -0.2), (-0.3, 0.3, -0.1), 1),
    ((-0.5, -0.3, -0.1), (-0.4, -0.2, 0.2), 2),
]

DESCRIBE = """
from pathlib import Path
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector
from blender_addon.scene import ImportOptions, import_result

options = json.loads(sys.argv[4])
scene = bpy.context.scene
before = sorted(sys.modules)
done = import_result(Path(sys.argv[3]), ImportOptions(show="BOTH", set_up_scene=True, **options))
points = json.loads(sys.argv[5])

def box(target):
    kind = "vertices" if target.type == "MESH" else "points"
    corners = np.array([target.matrix_world @ v.co for v in getattr(target.data, kind)])
    return [corners.min(0).tolist(), corners.max(0).tolist()]

def parts(target):
    # bounding box of what is red, green and blue: by texture column or by splat colour
    places = np.array([target.matrix_world @ v.co for v in target.data.vertices])
    if target == done.splats:
        colours = np.array([v.color[:3] for v in target.data.attributes["splat_colour"].data])
        groups = colours.argmax(1)
    else:
        groups = np.zeros(len(places), int)
        for loop, uv in zip(target.data.loops, target.data.uv_layers[0].data):
            groups[loop.vertex_index] = int(uv.uv[0] * 3)
    return [[places[groups == i].min(0).tolist(), places[groups == i].max(0).tolist()] for i in range(3)]

seen = []
for camera in done.cameras:
    pixels = []
    for point in points:
        x, y, z = world_to_camera_view(scene, camera, done.root.matrix_world @ Vector(point))
        pixels.append([x * scene.render.resolution_x, (1 - y) * scene.render.resolution_y, z])
    seen.append(pixels)
orbit = []
for frame in (1, 25, 49, 73, 97, 13):
    scene.frame_set(frame)
    matrix = np.array(done.orbit_camera.matrix_world)
    orbit.append({"frame": frame, "place": matrix[:3, 3].tolist(), "forward": (-matrix[:3, 2]).tolist()})
mesh = done.mesh[0]
principled = next(n for n in mesh.data.materials[0].node_tree.nodes if n.type == "BSDF_PRINCIPLED")
backgrounds = [camera.data.background_images[0] for camera in done.cameras]
graph = bpy.context.evaluated_depsgraph_get()
answer({
    "cameras": [np.array(camera.matrix_world).tolist() for camera in done.cameras],
    "camera_names": [camera.name for camera in done.cameras],
    "seen": seen, "orbit": orbit, "splat_box": box(done.splats), "mesh_box": box(mesh), "splat_parts": parts(done.splats), "mesh_parts": parts(mesh),
    "instances": sum(i.is_instance for i in graph.object_instances),
    "children": sorted(o.name for o in done.collection.all_objects if o.parent is None),
    "collections": sorted(c.name for c in done.collection.children),
    "properties": {k: (v if isinstance(v, (str, int, float)) else list(v)) for k, v in done.collection.items()},
    "roughness": principled.inputs["Roughness"].default_value,
    "base_linked": principled.inputs["Base Color"].links[0].from_node.type,
    "pictures": [[b.image.size[0], b.image.size[1], b.display_depth, bool(b.image.packed_file)] for b in backgrounds],
    "view_transform": scene.view_settings.view_transform, "camera": scene.camera.name,
    "frames": [scene.frame_start, scene.frame_end, scene.render.fps],
    "bounces": scene.cycles.transparent_max_bounces, "notes": list(done.notes), "name": done.name,
    "modules": [m for m in sys.modules if m.split(".")[0] in ("engine", "PIL", "torch")],
})
"""
POINTS = np.random.default_rng(2).uniform(-0.4, 0.4, (12, 3))


@pytest.fixture(scope="module")
def described(blender: Callable[..., Any], result_folder: Path) -> dict[str, Any]:
    """What one import of the whole folder leaves in the scene."""
    return blender(DESCRIBE, result_folder, "{}", json.dumps(POINTS.tolist()))


def test_cameras_see_what_the_engine_predicts(described: dict[str, Any], orbit: Orbit) -> None:
    for camera, seen in zip(orbit.cameras, np.array(described["seen"]), strict=True):
        pixels, depth = project(camera, POINTS)
        np.testing.assert_allclose(seen[:, :2], pixels, atol=0.01)  # px; Blender's matrices are float32
        np.testing.assert_allclose(seen[:, 2], depth, atol=1e-5)


def test_camera_matrices_are_the_engines(described: dict[str, Any], orbit: Orbit) -> None:
    np.testing.assert_allclose(described["cameras"], frames.to_blender(orbit.T_world_camera), atol=1e-6)  # float32


def test_names_carry_the_azimuth(described: dict[str, Any]) -> None:
    expected = [f"boxes View {i:02d} az {a:05.1f}" for i, a in enumerate((15.0, 105.0, 195.0, 285.0))]
    assert described["camera_names"] == expected


def test_each_camera_carries_its_picture(described: dict[str, Any]) -> None:
    assert described["pictures"] == [[48, 32, "BACK", True]] * 4


def test_mesh_and_splats_coincide_part_by_part(described: dict[str, Any]) -> None:
    # the whole is centred, so its bounding box alone would hide a mirrored axis: its three parts do not
    expected = [[low, high] for low, high, _ in BOXES]
    np.testing.assert_allclose(described["mesh_parts"], expected, atol=1e-6)
    np.testing.assert_allclose(described["splat_parts"], expected, atol=1e-6)  # centres lie on the same faces
    np.testing.assert_allclose(described["mesh_box"], described["splat_box"], atol=1e-6)


def test_every_splat_is_one_instance(described: dict[str, Any]) -> None:
    assert described["instances"] == 3 * 6 * 36


def test_the_orbit_camera_turns_once_and_looks_at_the_origin(described: dict[str, Any], orbit: Orbit) -> None:
    for state in described["orbit"]:
        place, forward = np.array(state["place"]), np.array(state["forward"])
        np.testing.assert_allclose(forward, -place / np.linalg.norm(place), atol=1e-5)
        azimuth = np.degrees(np.arctan2(place[0], -place[1]))
        expected = orbit.azimuth_deg[0] + (state["frame"] - 1) * 360 / 96
        assert abs((azimuth - expected + 180) % 360 - 180) < 1e-3  # float32 angles
        assert np.degrees(np.arcsin(place[2] / 2.0)) == pytest.approx(orbit.elevation_deg[0], abs=1e-3)
    np.testing.assert_allclose(described["orbit"][4]["place"], described["orbit"][0]["place"], atol=1e-5)  # it loops


def test_one_collection_one_root(described: dict[str, Any]) -> None:
    assert described["collections"] == ["boxes Cameras", "boxes Mesh", "boxes Splats"]
    assert described["children"] == ["boxes"]  # only the root has no parent
    assert described["camera"] == "boxes Orbit Camera"


def test_the_job_is_remembered(described: dict[str, Any]) -> None:
    properties = described["properties"]
    assert (properties["turntable_preset"], properties["turntable_seed"]) == ("tiny", str(2**40))
    assert json.loads(properties["turntable_settings"]) == {"steps": 20}
    assert properties["turntable_normalisation_scale"] == 0.25
    assert properties["turntable_normalisation_centre"] == [3.0, -2.0, 1.5]


def test_the_mesh_keeps_its_material(described: dict[str, Any]) -> None:
    assert described["roughness"] == pytest.approx(0.625)
    assert described["base_linked"] == "TEX_IMAGE"


def test_the_scene_is_set_up_on_request_and_said(described: dict[str, Any]) -> None:
    assert (described["view_transform"], described["frames"]) == ("Standard", [1, 96, 24])
    assert described["bounces"] == 512
    assert described["notes"] == ["Cycles' transparent bounces raised from 8 to 512: splats lie in layers."]


def test_the_add_on_brings_no_engine(described: dict[str, Any]) -> None:
    assert described["modules"] == []


def test_true_size_undoes_the_normalisation(blender: Callable[..., Any], result_folder: Path, orbit: Orbit) -> None:
    found = blender(DESCRIBE, result_folder, '{"true_size": true}', json.dumps(POINTS.tolist()))
    low, high = np.array([[-0.5, -0.3, -0.2], [0.5, 0.3, 0.2]]) / 0.25 + np.array([3.0, -2.0, 1.5])
    for label in ("mesh_box", "splat_box"):
        np.testing.assert_allclose(found[label], [low, high], atol=1e-5)
    for camera, seen in zip(orbit.cameras, np.array(found["seen"]), strict=True):  # the rig grows with the asset
        np.testing.assert_allclose(seen[:, :2], project(camera, POINTS)[0], atol=0.01)


QUIET = """
from pathlib import Path
from blender_addon.scene import ImportOptions, import_result
from blender_addon.rollback import data_blocks
scene = bpy.context.scene
def state():
    view, render = scene.view_settings, scene.render
    return [view.view_transform, render.resolution_x, render.fps, scene.frame_end, scene.cycles.transparent_max_bounces]
def names():
    return sorted(f"{type(block).__name__} {block.name}" for block in data_blocks())
first = state()
done = import_result(Path(sys.argv[3]))
shown = {c.name: c.exclude for c in bpy.context.view_layer.layer_collection.children["boxes"].children}
once = names()
done.root.location = (1, 2, 3)
again = import_result(Path(sys.argv[3]))
twice = names()
place = list(again.root.matrix_basis.translation)
copy = import_result(Path(sys.argv[3]), ImportOptions(replace=False))
selected = [o.name for o in bpy.context.selected_objects]
answer({"first": first, "then": state(), "shown": shown, "once": once, "twice": twice, "place": place,
        "notes": list(done.notes), "again": list(again.notes), "copy": copy.name, "camera": scene.camera.name,
        "copied": sorted(c.name for c in copy.collection.children), "selected": selected})
"""


@pytest.fixture(scope="module")
def quiet(blender: Callable[..., Any], result_folder: Path) -> dict[str, Any]:
    """An import with the defaults, a second one over it, a third beside it."""
    return blender(QUIET, result_folder)


def test_the_artists_scene_is_left_alone(quiet: dict[str, Any]) -> None:
    assert quiet["then"][:4] == quiet["first"][:4]
    assert quiet["first"][0] == "AgX"
    assert quiet["notes"][-1].startswith("The scene's view transform is AgX: choose Standard")


def test_only_the_mesh_is_ticked_by_default(quiet: dict[str, Any]) -> None:
    assert quiet["shown"] == {"boxes Splats": True, "boxes Mesh": False, "boxes Cameras": False}


def test_importing_again_replaces_and_keeps_the_place(quiet: dict[str, Any]) -> None:
    assert quiet["twice"] == quiet["once"]  # same names, nothing piled up
    assert quiet["place"] == [1, 2, 3]
    assert quiet["again"][-1] == "Replaced the earlier import of this folder."
    assert quiet["camera"] == "boxes Orbit Camera"


def test_a_copy_is_numbered_throughout(quiet: dict[str, Any]) -> None:
    assert quiet["copy"] == "boxes.001"
    assert quiet["copied"] == ["boxes.001 Cameras", "boxes.001 Mesh", "boxes.001 Splats"]
    assert quiet["selected"] == ["boxes.001"]


FAIL = """
from pathlib import Path
import blender_addon.cameras, blender_addon.scene as module
from blender_addon.errors import FixItError
from blender_addon.rollback import data_blocks
bpy.ops.mesh.primitive_cube_add()
cube = bpy.context.object
scene = bpy.context.scene
found = []
def attempt(folder):
    before = {(type(block).__name__, block.name) for block in data_blocks()}
    settings = [scene.camera, scene.cycles.transparent_max_bounces]
    try:
        module.import_result(Path(folder))
        message = "no error"
    except FixItError as error:
        message = str(error)
    except OSError as error:
        message = f"OSError {error}"
    after = {(type(block).__name__, block.name) for block in data_blocks()}
    left = sorted(map(list, after - before)) + sorted(map(list, before - after))
    same = [scene.camera, scene.cycles.transparent_max_bounces] == settings
    found.append([message, left, same, bpy.context.view_layer.objects.active == cube, cube.select_get()])
for folder in json.loads(sys.argv[3]):
    attempt(folder)
def late(*arguments, **options):
    raise OSError("disk full")
module.add_orbit_camera = late  # everything else is in the scene by then
attempt(sys.argv[4])
answer(found)
"""


def test_failures_leave_nothing(
    blender: Callable[..., Any], make_result: Callable[[Path], Path], tmp_path: Path, result_folder: Path
) -> None:
    folders = [make_result(tmp_path / name) for name in ("no_orbit", "no_view", "cut", "nan", "bad_mesh", "bad_image")]
    (folders[0] / "orbit.json").unlink()
    (folders[1] / "boxes.ring4.rgba_03.webp").unlink()
    data = (folders[2] / "splats.ply").read_bytes()
    (folders[2] / "splats.ply").write_bytes(data[:-7])
    (folders[3] / "splats.ply").write_bytes(data[:-4] + np.float32(np.nan).tobytes())
    # a right header with an accessor that reaches past its buffer: only Blender's importer notices
    glb = (folders[4] / "mesh.glb").read_bytes()
    (folders[4] / "mesh.glb").write_bytes(glb.replace(b'"type": "VEC2"', b'"type": "QQQQ"'))
    (folders[5] / "boxes.ring4.rgba_01.webp").write_bytes(b"not a picture")
    expected = [
        "no_orbit: expected orbit.json, found none. ",
        "no_view: expected 4 views, 1 missing: boxes.ring4.rgba_03.webp first. ",
        "splats.ply is truncated: ",
        "splats.ply: rot_3 of splat 647 is not finite (1 such values). ",
        "mesh.glb: Blender's glTF importer refused it (",
        "boxes.ring4.rgba_01.webp: expected a picture, found none that Blender can read. ",
        "OSError disk full",
    ]
    found = blender(FAIL, json.dumps([str(f) for f in folders]), result_folder)
    for (message, left, same, active, selected), start in zip(found, expected, strict=True):
        assert message.startswith(start)
        assert (left, same, active, selected) == ([], True, True, True), message
        assert "\n" not in message


PARTS = """
from pathlib import Path
from blender_addon.scene import import_result
found = []
for folder in json.loads(sys.argv[3]):
    done = import_result(Path(folder))
    excluded = [c.name for c in bpy.context.view_layer.layer_collection.children[done.name].children if c.exclude]
    found.append([done.splats is not None, len(done.mesh), len(done.cameras), excluded, list(done.notes)[0]])
answer(found)
"""


def test_what_there_is_is_imported(
    blender: Callable[..., Any], make_result: Callable[[Path], Path], tmp_path: Path
) -> None:
    folders = [make_result(tmp_path / name) for name in ("meshless", "splatless")]
    (folders[0] / "mesh.glb").unlink()
    (folders[1] / "splats.ply").unlink()
    assert blender(PARTS, json.dumps([str(f) for f in folders])) == [
        [True, 0, 4, [], "mesh.glb is not in meshless: imported without it."],
        [False, 1, 4, [], "splats.ply is not in splatless: imported without it."],
    ]
