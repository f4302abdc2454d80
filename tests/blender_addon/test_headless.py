"""The headless command: a folder in, a .blend and a picture out, one JSON line, exit codes that can be trusted."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.blender
ROOT = Path(__file__).resolve().parents[2]
SIZE = 96


def command(*arguments: object, script: bool = False) -> subprocess.CompletedProcess[str]:
    start = [str(ROOT / "blender_addon" / "headless.py"), "--"] if script else ["-m", "blender_addon.headless"]
    environment = {key: value for key, value in os.environ.items() if key != "BLENDER_USER_RESOURCES"}
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(result_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One run of the command: its JSON line, and the home folder that it must not touch."""
    if find_spec("bpy") is None:
        pytest.skip("bpy is not installed: pip install bpy==4.5.15")
    out = tmp_path_factory.mktemp("headless") / "deeper"
    done = command(
        result_folder, "--scene", out / "scene.blend", "--preview", out / "preview.png", "--size", SIZE, "--samples", 8,
        "--threads", 2,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("\n") == 1  # one line and nothing of Blender's chatter
    return json.loads(done.stdout)


def test_the_json_line(made: dict[str, Any]) -> None:
    assert (made["name"], made["views"], made["shown"]) == ("boxes", 4, ["mesh", "splats"])
    folder = Path(made["scene"]).parent
    assert sorted(path.name for path in folder.iterdir()) == ["preview.png", "scene.blend"]  # no partial files


def test_the_preview_shows_both_through_the_same_camera(made: dict[str, Any]) -> None:
    picture = np.asarray(Image.open(made["preview"])).astype(float)
    assert picture.shape == (SIZE, 2 * SIZE, 3)
    halves = picture[:, :SIZE], picture[:, SIZE:]
    # the red, green and blue boxes, by which channel leads clearly; the grey backdrop leads in none
    for channel in range(3):
        masks = [half[..., channel] - np.delete(half, channel, 2).max(2) > 40 for half in halves]
        assert min(mask.sum() for mask in masks) > 50, f"channel {channel} is missing: black or washed-out"
        centres = [np.argwhere(mask).mean(0) for mask in masks]
        assert (
            np.abs(centres[0] - centres[1]).max() < 5
        )  # px; splats bulge over the edges, by a pixel of the fixture's small views too
    corners = picture[[2, 2, -3, -3], [2, -3, 2, -3]]
    assert corners.min() > 150  # a light backdrop
    assert np.ptp(corners, axis=1).max() < 12  # and a nearly neutral one


REOPEN = """
bpy.ops.wm.open_mainfile(filepath=sys.argv[3])
scene = bpy.context.scene
job = bpy.context.view_layer.layer_collection.children["boxes"]
shown = {c.name: not c.exclude for c in job.children}
for child in job.children:
    child.exclude = False
graph = bpy.context.evaluated_depsgraph_get()
answer({
    "shown": shown, "instances": sum(i.is_instance for i in graph.object_instances),
    "objects": sorted(o.name for o in scene.objects),
    "unpacked": [i.name for i in bpy.data.images if i.source == "FILE" and not i.packed_file],
    "empty": [i.name for i in bpy.data.images if i.source == "FILE" and not i.size[0]],
    "images": sum(i.source == "FILE" for i in bpy.data.images),
    "camera": scene.camera.name, "frame": scene.frame_current, "engine": scene.render.engine,
    "view_transform": scene.view_settings.view_transform, "size": scene.render.resolution_x,
    "azimuth": float(np.degrees(np.arctan2(scene.camera.matrix_world[0][3], -scene.camera.matrix_world[1][3]))),
    "unseen": [o.name for o in scene.objects if o.type == "MESH" and not o.visible_camera],
    "preset": bpy.data.collections["boxes"]["turntable_preset"],
})
"""


def test_the_scene_opens_anywhere(made: dict[str, Any], blender: Callable[..., Any], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere.blend"
    moved.write_bytes(Path(made["scene"]).read_bytes())
    found = blender(REOPEN, moved)
    assert found["shown"] == {"boxes Cameras": True, "boxes Mesh": True, "boxes Splats": False}
    assert found["instances"] == 3 * 6 * 36
    assert (found["unpacked"], found["empty"], found["images"]) == ([], [], 5)  # four views and the texture
    views = [f"boxes View {i:02d} az {a:05.1f}" for i, a in enumerate((15.0, 105.0, 195.0, 285.0))]
    rig = ["boxes", "boxes Mesh", "boxes Orbit", "boxes Orbit Camera", "boxes Splats", *views]
    assert found["objects"] == sorted([*rig, "Key", "Fill", "Rim", "Floor"])
    assert (found["camera"], found["engine"], found["view_transform"]) == ("boxes Orbit Camera", "CYCLES", "Standard")
    assert found["azimuth"] == pytest.approx(30.0, abs=360 / 96 / 2 + 1e-3)  # the nearest frame
    assert (found["unseen"], found["size"], found["preset"]) == ([], SIZE, "tiny")


LOOK = """
bpy.ops.wm.open_mainfile(filepath=sys.argv[3])
scene = bpy.context.scene
scene.render.resolution_x = scene.render.resolution_y = 48
scene.cycles.samples, scene.cycles.use_denoising = 64, False
scene.render.filepath = sys.argv[1] + ".png"
bpy.ops.render.render(write_still=True)
image = bpy.data.images.load(scene.render.filepath)
image.alpha_mode = "CHANNEL_PACKED"
mesh = next(o for o in scene.objects if o.name == "boxes Mesh")
corners = np.array([mesh.matrix_world @ v.co for v in mesh.data.vertices])
answer([list(image.pixels), corners.min(0).tolist(), corners.max(0).tolist(), scene.objects["Floor"].location.z,
        [scene.camera.data.clip_start, scene.camera.data.clip_end]])
"""


def test_true_size_changes_the_scene_and_no_picture(
    made: dict[str, Any], blender: Callable[..., Any], result_folder: Path, tmp_path: Path
) -> None:
    done = command(
        result_folder, "--scene", tmp_path / "true.blend", "--preview", tmp_path / "p.png", "--size", 16,
        "--samples", 1, "--threads", 2, "--true-size",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found, low, high, floor, clip = blender(LOOK, tmp_path / "true.blend")
    expected, *_, clip_before = blender(LOOK, made["scene"])
    scale, centre = 0.25, np.array([3.0, -2.0, 1.5])  # as conftest normalises
    half = np.array([0.5, 0.3, 0.2]) / scale
    np.testing.assert_allclose([low, high], [centre - half, centre + half], atol=1e-5)
    assert floor == pytest.approx(low[2] - 0.002 / scale, abs=1e-5)
    np.testing.assert_allclose(clip, 4 * np.array(clip_before), rtol=1e-6)  # float32
    found, expected = np.array(found), np.array(expected)
    assert expected.std() > 0.1  # a picture
    assert np.abs(found - expected).mean() < 0.01  # 0 seen, thanks to a scale of 4; others round, and paths may part


@pytest.mark.parametrize("script", [False, True], ids=["module", "by path"])
def test_a_bad_folder_is_one_line_and_exit_1(blender: Callable[..., Any], tmp_path: Path, script: bool) -> None:
    done = command(tmp_path / "none", "--scene", tmp_path / "s.blend", "--preview", tmp_path / "p.png", script=script)
    assert (done.returncode, done.stdout) == (1, "")
    expected = f"error: {tmp_path}/none: expected a result folder, found none. Choose the folder that holds orbit.json."
    assert done.stderr.strip().splitlines()[-1] == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("r", "--scene", "s.blend"), "the following arguments are required: --preview"),
        (("r", "--scene", "s.blend", "--preview", "p.png", "--size", "0"), "--size must be at least 1, got 0"),
        (("r", "--scene", "s.txt", "--preview", "p.png"), "--scene must end in .blend and --preview in .png"),
    ],
)
def test_wrong_arguments_exit_2(arguments: tuple[str, ...], message: str) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
