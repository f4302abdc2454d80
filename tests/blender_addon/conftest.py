"""A small result folder, made here from numbers, and child processes that run the add-on in Blender.

The object is three boxes, one along each axis and each of its own length and colour: any mirrored or swapped axis shows.
"""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.geometry import Orbit, frames, look_at, quaternion_from_matrix
from engine.geometry.orbit import orbit_position

ROOT = Path(__file__).resolve().parents[2]
SH_DC = 0.28209479177387814
NAMES = [
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip
BOXES = [  # lower corner, upper corner, sRGB; together they fill -0.5..0.5 x -0.3..0.3 x -0.2..0.2
    ((-0.5, -0.3, -0.2), (0.5, -0.1, -0.1), (220, 40, 30)),
    ((-0.5, -0.1, -0.2), (-0.3, 0.3, -0.1), (40, 190, 60)),
    ((-0.5, -0.3, -0.1), (-0.4, -0.2, 0.2), (50, 70, 230)),
]
NORMALISATION = {"scale": 0.25, "centre": [3.0, -2.0, 1.5]}
Blender = Callable[..., Any]

CHILD = """
import json, os, sys, traceback
try:
    import bpy
    import numpy as np
    bpy.ops.wm.read_factory_settings(use_empty=True)
    def answer(value):
        with open(sys.argv[1], "w") as stream:
            json.dump(value, stream)
    exec(compile(open(sys.argv[2]).read(), "child", "exec"))
    code = 0
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush(); sys.stderr.flush()
os._exit(code)  # bpy 4.5 hangs in its own clean-up
"""


@pytest.fixture(scope="session")
def blender(tmp_path_factory: pytest.TempPathFactory) -> Blender:
    """Run code in a fresh bpy process: `blender(code, argument, ...)` gives what the code passed to `answer`.

    The code finds its arguments in sys.argv[3:].
    """
    if find_spec("bpy") is None:
        pytest.skip("bpy is not installed: pip install bpy==4.5.15")

    def run(code: str, *arguments: object, timeout_s: float = 300) -> Any:
        folder = tmp_path_factory.mktemp("child")
        (folder / "child.py").write_text(code)
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(folder / "answer.json"), str(folder / "child.py"), *map(str, arguments)],
            cwd=ROOT, env=child_environment(folder), capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return json.loads((folder / "answer.json").read_text())

    return run


def child_environment(folder: Path) -> dict[str, str]:
    """Return an environment in which Blender keeps its settings inside `folder`."""
    return {**os.environ, "BLENDER_USER_RESOURCES": str(folder / "blender"), "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="session")
def orbit() -> Orbit:
    """Four cameras 24 degrees up, wide pictures, principal point well off the middle."""
    azimuths = np.array([15.0, 105.0, 195.0, 285.0])
    poses = np.stack([look_at(orbit_position(a, 24.0, 2.0), np.zeros(3)) for a in azimuths])
    return Orbit("ring4", poses, azimuths, np.full(4, 24.0), np.full(4, 2.0), 48, 32, 44.5, (21.25, 17.75))


@pytest.fixture(scope="session")
def make_result(orbit: Orbit) -> Callable[[Path], Path]:
    """Write a whole result folder at a path."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True)
        _write_orbit(folder, orbit)
        (folder / "splats.ply").write_bytes(splat_bytes(box_splats()))
        (folder / "mesh.glb").write_bytes(glb_bytes())
        report = {"preset": "tiny", "seed": 2**40, "settings": {"steps": 20}, "weights": None, "seconds": 1.5}
        (folder / "report.json").write_text(json.dumps(report))
        return folder

    return make


@pytest.fixture(scope="session")
def result_folder(make_result: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One result folder, to be read only."""
    return make_result(tmp_path_factory.mktemp("results") / "boxes")


def _write_orbit(folder: Path, orbit: Orbit) -> None:
    header = {
        "format": "orbit/1", "uid": "boxes", "orbit": orbit.name, "width": orbit.width, "height": orbit.height,
        "focal_px": orbit.focal_px, "principal_px": list(orbit.principal_px), "azimuth_deg": orbit.azimuth_deg.tolist(),
        "elevation_deg": float(orbit.elevation_deg[0]), "distance_m": float(orbit.distance_m[0]),
        "T_world_camera": orbit.T_world_camera.round(7).tolist(), "camera_axes": "opencv", "world_up": "+z",
        "alpha": "straight", "normalisation": NORMALISATION,
    }  # fmt: skip
    (folder / "orbit.json").write_text(json.dumps(header))
    for index in range(len(orbit)):
        picture = np.full((orbit.height, orbit.width, 4), (60 * index, 90, 120, 255), np.uint8)
        Image.fromarray(picture).save(folder / f"boxes.{orbit.name}.rgba_{index:02d}.webp", lossless=True)


def box_splats() -> dict[str, np.ndarray]:
    """Return flat splats all over the boxes, in OUR world: means, scales, rotations, opacities, rgb (0 to 1)."""
    means, rotations, colours = [], [], []
    steps = (np.arange(6) + 0.5) / 6
    for low, high, rgb in BOXES:
        low, size = np.array(low), np.array(high) - np.array(low)
        for axis in range(3):
            for side in (0.0, 1.0):
                for a in steps:
                    for b in steps:
                        place = np.insert(np.array([a, b]), axis, side)
                        means.append(low + place * size)
                        rotations.append(np.roll(np.eye(3), axis + 1, axis=0))  # third column along the face's axis
                        colours.append(np.array(rgb) / 255)
    count = len(means)
    return {
        "means": np.array(means), "scales": np.tile([0.03, 0.03, 0.003], (count, 1)), "rotations": np.array(rotations),
        "opacities": np.full(count, 0.95), "rgb": np.array(colours),
    }  # fmt: skip


def splat_columns(splats: dict[str, np.ndarray]) -> np.ndarray:
    """Return [n, 17] as NAMES, or with `f_rest` [n, 3, k] given in the FILE's world also those, channel by channel."""
    rotations = frames.SPLAT_FROM_Z_UP @ splats["rotations"]
    opacities = splats["opacities"]
    columns = [
        splats["means"] @ frames.SPLAT_FROM_Z_UP.T, np.zeros((len(opacities), 3)), (splats["rgb"] - 0.5) / SH_DC,
        np.log(opacities / (1 - opacities))[:, None], np.log(splats["scales"]), quaternion_from_matrix(rotations),
    ]  # fmt: skip
    if "f_rest" in splats:
        columns.append(splats["f_rest"].reshape(len(opacities), -1))
    return np.concatenate(columns, 1)


def splat_bytes(splats: dict[str, np.ndarray], comment: str = "comment turntable axes y_down\n") -> bytes:
    """Return a whole 3DGS PLY."""
    columns = splat_columns(splats)
    names = NAMES + [f"f_rest_{i}" for i in range(columns.shape[1] - len(NAMES))]
    header = f"ply\nformat binary_little_endian 1.0\n{comment}element vertex {len(columns)}\n"
    header += "".join(f"property float {name}\n" for name in names) + "end_header\n"
    return header.encode() + columns.astype("<f4").tobytes()


def glb_bytes() -> bytes:
    """Return the boxes as one textured glTF mesh; each box has a third of the texture."""
    positions, uvs, faces = [], [], []
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    for index, (low, high, _) in enumerate(BOXES):
        for quad in quads:
            start = len(positions)
            positions += [np.array(low) + corners[c] * (np.array(high) - np.array(low)) for c in quad]
            uvs += [((index + 0.5) / 3, 0.5)] * 4
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    texture = np.repeat(np.repeat(np.array([[box[2] for box in BOXES]], np.uint8), 8, 0), 8, 1)
    stream = BytesIO()
    Image.fromarray(texture).save(stream, "PNG")
    place = frames.points_to_gltf(np.array(positions)).astype("<f4")
    parts = [place.tobytes(), np.array(uvs, "<f4").tobytes(), np.array(faces, "<u2").tobytes(), stream.getvalue()]
    return _pack_glb(parts, place, len(faces) * 3)


def _pack_glb(parts: list[bytes], place: np.ndarray, indices: int) -> bytes:
    body, views = b"", []
    for part in parts:
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(part)})
        body += part + b"\0" * (-len(part) % 4)
    limits = {"min": place.min(0).tolist(), "max": place.max(0).tolist()}
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {
            "baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 0.625}}],
        "textures": [{"source": 0}], "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(place), "type": "VEC3", **limits},
            {"bufferView": 1, "componentType": 5126, "count": len(place), "type": "VEC2"},
            {"bufferView": 2, "componentType": 5123, "count": indices, "type": "SCALAR"},
        ],
        "bufferViews": views, "buffers": [{"byteLength": len(body)}],
    }  # fmt: skip
    head = json.dumps(document).encode()
    head += b" " * (-len(head) % 4)
    chunks = struct.pack("<I4s", len(head), b"JSON") + head + struct.pack("<I4s", len(body), b"BIN\0") + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks
