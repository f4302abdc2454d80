"""Broken models, each wrong in one way, and good ones beside them. What is in them is known to the byte.

make_folder(FOLDER)   files that a folder source finds      -> {uid: reason it must end with}
make_table(FOLDER)    files that only a list can name       -> (the list, {uid: reason})
"""

import csv
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.render_farm.conftest import Part, box, write_glb

RED, GREEN, GREY = [0.8, 0.1, 0.1, 1.0], [0.1, 0.6, 0.2, 1.0], [0.5, 0.5, 0.5, 1.0]
MAX_TRIANGLES = 100
POINTS, LINES = 0, 1
"""glTF's primitive modes."""


def make_folder(folder: Path) -> dict[str, str]:
    """Write the models of a folder source; return the reason of each, empty for good ones."""
    folder.mkdir(parents=True)
    made = {}
    for reason, make in BROKEN.items():
        path = make(folder)
        made[path.stem] = reason
    pillar(folder / "good_1.glb")
    pillar(folder / "good_2.glb", [0.2, 0.2, 0.9, 1.0])
    shutil.copy(folder / "good_1.glb", folder / "same_bytes.glb")
    return made | {"good_1": "", "good_2": "", "same_bytes": "duplicate"}


def make_table(folder: Path) -> tuple[Path, dict[str, str]]:
    """Write models that a folder source would pass over or know nothing of, and the list that names them."""
    folder.mkdir(parents=True)
    (folder / "old.3ds").write_bytes(b"MM\x00\x00\x00\x00")
    (folder / "folder.glb").mkdir()
    pillar(folder / "not_free.glb", [0.9, 0.9, 0.1, 1.0])
    pillar(folder / "other_bytes.glb", [0.9, 0.5, 0.1, 1.0])
    rows = [
        ("old.3ds", "old", "CC0-1.0", ""), ("folder.glb", "folder", "CC0-1.0", ""),
        ("not_free.glb", "not_free", "CC BY-NC 4.0", ""), ("other_bytes.glb", "other_bytes", "CC0-1.0", "0" * 64),
    ]  # fmt: skip
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "uid", "license", "sha256"), *rows])
    reasons = {"old": "unknown-format", "folder": "not-a-file", "not_free": "licence", "other_bytes": "fetch-failed"}
    return folder / "list.csv", reasons


# ------------------------------------------------------------------------------------------------ good ones
def pillar(path: Path, colour: list[float] = RED) -> Path:
    """Two boxes of two colours, one on the other: high and slim, so that it fits into every picture."""
    return write_glb(
        path, box((0.3, 0.3, 0.5), (0, 0, -0.25), baseColorFactor=colour, metallicFactor=0.0),
        box((0.2, 0.2, 0.5), (0, 0, 0.25), baseColorFactor=GREEN, metallicFactor=0.0),
    )  # fmt: skip


def edit(path: Path, change: Callable[[dict[str, Any]], None], more: bytes = b"", version: int = 2) -> Path:
    """Change the JSON of a GLB; `more` is added to its binary chunk."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    document, blob = json.loads(data[20 : 20 + length]), data[28 + length :] + more
    change(document)
    document["buffers"][0]["byteLength"] = len(blob)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\x00") + blob
    path.write_bytes(struct.pack("<4sII", b"glTF", version, 12 + len(body)) + body)
    return path


# ------------------------------------------------------------------------------------------------ broken files
def cut_off(folder: Path) -> Path:
    path = pillar(folder / "cut_off.glb")
    path.write_bytes(path.read_bytes()[:-100])
    return path


def web_page(folder: Path) -> Path:
    path = folder / "web_page.glb"
    path.write_text("<!DOCTYPE html>\n<html><body>404: not found</body></html>\n")
    return path


def basisu(folder: Path) -> Path:
    return edit(pillar(folder / "basisu.glb"), lambda d: d.update(extensionsRequired=["KHR_texture_basisu"]))


def gltf_1(folder: Path) -> Path:
    return edit(pillar(folder / "gltf_1.glb"), lambda d: d.update(asset={"version": "1.0"}), version=1)


def no_buffer(folder: Path) -> Path:
    path = folder / "no_buffer.gltf"
    path.write_text(json.dumps({"asset": {"version": "2.0"}, "buffers": [{"uri": "gone.bin", "byteLength": 36}]}))
    return path


def not_numbers(folder: Path) -> Path:
    part = box(baseColorFactor=RED)
    points = np.array(part.vertices)
    points[5] = np.nan
    return write_glb(folder / "not_numbers.glb", Part(points, part.faces, part.material), check=False)


def many(folder: Path) -> Path:
    boxes = [box((0.1, 0.1, 0.1), (0, 0, i / 5), baseColorFactor=[i / 10, 0.5, 0.5, 1]) for i in range(9)]
    return write_glb(folder / "many.glb", *boxes)


# ------------------------------------------------------------------------------------------------ broken objects
def bad_fbx(folder: Path) -> Path:
    """Its header is right, and nothing follows."""
    path = folder / "bad.fbx"
    path.write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00" + struct.pack("<I", 7400) + bytes(400))
    return path


def hangs(folder: Path) -> Path:
    """Its material library is a pipe that nobody ever writes to: opening it never ends."""
    path = folder / "hangs.obj"
    path.write_text("mtllib pipe.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\n")
    os.mkfifo(folder / "pipe.mtl")
    return path


def only_points(folder: Path) -> Path:
    def change(document: dict[str, Any]) -> None:
        for mesh, mode in zip(document["meshes"], (POINTS, LINES), strict=True):
            mesh["primitives"][0]["mode"] = mode

    return edit(pillar(folder / "only_points.glb"), change)


def one_point(folder: Path) -> Path:
    part = box(baseColorFactor=RED)
    return write_glb(folder / "one_point.glb", Part(np.ones((8, 3)), part.faces, part.material))


def unseen(folder: Path) -> Path:
    part = box(baseColorFactor=[0.5, 0.5, 0.5, 0.0])
    return write_glb(folder / "unseen.glb", Part(part.vertices, part.faces, part.material | {"alphaMode": "BLEND"}))


def needle(folder: Path) -> Path:
    return write_glb(folder / "needle.glb", box((0.004, 0.004, 1), baseColorFactor=RED, metallicFactor=0.0))


def wide(folder: Path) -> Path:
    return write_glb(folder / "wide.glb", box((1, 1, 1), baseColorFactor=RED, metallicFactor=0.0))


def glaring(folder: Path) -> Path:
    glow = {"emissiveFactor": [1, 1, 1], "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 50.0}}}
    part = box((0.4, 0.4, 1))
    return write_glb(
        folder / "glaring.glb", Part(part.vertices, part.faces, part.material | glow),
        extra={"extensionsUsed": ["KHR_materials_emissive_strength"]},
    )  # fmt: skip


def plain(folder: Path) -> Path:
    return write_glb(folder / "plain.glb", box((0.4, 0.4, 1), baseColorFactor=GREY, metallicFactor=0.0))


def no_texture(folder: Path) -> Path:
    def change(document: dict[str, Any]) -> None:
        document.update(images=[{"uri": "gone.png"}], textures=[{"source": 0}])
        document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] = {"index": 0}

    return edit(pillar(folder / "no_texture.glb"), change)


def moving(folder: Path) -> Path:
    """Its first box moves by a metre within a second."""
    times, places = np.array([0, 1], "<f4"), np.array([[0, 0, 0], [1, 0, 0]], "<f4")

    def change(document: dict[str, Any]) -> None:
        start, view, accessor = (
            document["buffers"][0]["byteLength"],
            len(document["bufferViews"]),
            len(document["accessors"]),
        )
        document["bufferViews"] += [
            {"buffer": 0, "byteOffset": start, "byteLength": times.nbytes},
            {"buffer": 0, "byteOffset": start + times.nbytes, "byteLength": places.nbytes},
        ]
        document["accessors"] += [
            {"bufferView": view, "componentType": 5126, "count": 2, "type": "SCALAR", "min": [0], "max": [1]},
            {"bufferView": view + 1, "componentType": 5126, "count": 2, "type": "VEC3"},
        ]
        document["animations"] = [{
            "samplers": [{"input": accessor, "output": accessor + 1}],
            "channels": [{"sampler": 0, "target": {"node": 0, "path": "translation"}}],
        }]  # fmt: skip

    return edit(pillar(folder / "moving.glb"), change, times.tobytes() + places.tobytes())


BROKEN: dict[str, Callable[[Path], Path]] = {
    "truncated": cut_off, "malformed": web_page, "unsupported-extension": basisu, "unsupported-format": gltf_1,
    "missing-file": no_buffer, "not-finite": not_numbers, "too-large": many, "import-failed": bad_fbx,
    "timeout": hangs, "no-triangles": only_points, "zero-size": one_point, "blank": unseen, "tiny": needle,
    "cropped": wide, "over-exposed": glaring, "untextured": plain, "missing-textures": no_texture, "animated": moving,
}  # fmt: skip
"""Reason -> what ends with it."""
