"""Small models written from scratch, a quick way to render them, and a worker that misbehaves on cue."""

import dataclasses
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.files import OrbitImages, read_orbit
from render_farm.render import RenderReport, render_asset
from render_farm.spec import AssetPolicy, CameraSpec, Execution, RenderSpec

HERE = Path(__file__).parent
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Part:
    """Triangles with one glTF material."""

    vertices: Any
    """[n, 3], our +Z-up world."""
    faces: Any
    """[m, 3]"""
    material: dict[str, Any]
    """A glTF material."""
    normals: Any = None
    """[n, 3] or None: flat."""


def write_glb(path: Path, *parts: Part, extra: dict[str, Any] | None = None, check: bool = True) -> Path:
    """Write a GLB by hand: what is in it is known to the byte."""
    blob, views, accessors, meshes = b"", [], [], []

    def add(array: Any, component: int, kind: str, **more: Any) -> int:
        nonlocal blob
        data = np.ascontiguousarray(array).tobytes()
        views.append({"buffer": 0, "byteOffset": len(blob), "byteLength": len(data)})
        blob += data + b"\x00" * (-len(data) % 4)
        count = len(array) if kind == "VEC3" else array.size
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind} | more
        )
        return len(accessors) - 1

    for index, part in enumerate(parts):
        points = _y_up(part.vertices)
        bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()} if check else {}
        attributes = {"POSITION": add(points, 5126, "VEC3", **bounds)}
        if part.normals is not None:
            attributes["NORMAL"] = add(_y_up(part.normals), 5126, "VEC3")
        indices = add(np.asarray(part.faces, np.uint32), 5125, "SCALAR")
        meshes.append({"primitives": [{"attributes": attributes, "indices": indices, "material": index}]})
    document = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": list(range(len(parts)))}],
        "nodes": [{"mesh": i} for i in range(len(parts))], "meshes": meshes,
        "materials": [part.material for part in parts], "bufferViews": views, "accessors": accessors,
        "buffers": [{"byteLength": len(blob)}],
    } | (extra or {})  # fmt: skip
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(blob), b"BIN\x00") + blob
    path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)
    return path


def _y_up(points: Any) -> Any:
    x, y, z = np.asarray(points, np.float32).T
    return np.stack([x, z, -y], -1)


def _write_ply(path: Path) -> Path:
    lines = ["ply", "format ascii 1.0", f"comment {path.stem}", "element vertex 3", "property float x", "property float y",
             "property float z", "element face 1", "property list uchar int vertex_indices", "end_header", "0 0 0",
             "1 0 0", "0 1 0", "3 0 1 2"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


BOX_FACES = np.array(
    [[0, 2, 1], [1, 2, 3], [4, 5, 6], [5, 7, 6], [0, 1, 4], [1, 5, 4], [2, 6, 3], [3, 6, 7], [0, 4, 2], [2, 4, 6],
     [1, 3, 5], [3, 7, 5]]
)  # fmt: skip
"""Of the corners in binary order x + 2 y + 4 z, seen from outside counter-clockwise."""


def box(size: Any = (1, 1, 1), at: Any = (0, 0, 0), **material: Any) -> Part:
    """A box; keyword arguments are the glTF material's pbrMetallicRoughness."""
    corners = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) - 0.5
    return Part(corners * size + at, BOX_FACES, {"pbrMetallicRoughness": material})


@pytest.fixture
def box_glb(tmp_path: Path) -> Path:
    return write_glb(tmp_path / "box.glb", box(baseColorFactor=[0.2, 0.4, 0.6, 1]))


@dataclass(frozen=True)
class Rendered:
    report: RenderReport
    images: OrbitImages


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rendered]:
    """Render with real Blender; keyword arguments are RenderSpec's, CameraSpec's and AssetPolicy's, small by default."""

    def run(path: Path, out: Path | None = None, **given: Any) -> Rendered:
        fields = {"width": 96, "height": 96, "samples": 4, "elevation_deg": 20.0} | given
        parts = {
            name: kind(**{field.name: fields.pop(field.name) for field in dataclasses.fields(kind) if field.name in fields})
            for name, kind in (("cameras", CameraSpec), ("assets", AssetPolicy)) if name not in fields
        }  # fmt: skip
        folder = out or tmp_path_factory.mktemp("orbit")
        report = render_asset(path, folder, RenderSpec(**parts, **fields), execution=Execution(threads=THREADS))
        return Rendered(report, read_orbit(report.path))

    return run


@pytest.fixture(scope="session")
def run_program() -> Callable[..., None]:
    """Run a Blender program of programs/ in a child."""

    def run(name: str, *arguments: str) -> None:
        command = [sys.executable, str(HERE / "programs" / name), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.fixture
def fake_worker() -> Callable[[str], tuple[str, ...]]:
    """The command of a worker that does one thing: see fake_worker.py."""
    return lambda behaviour: (sys.executable, str(HERE / "fake_worker.py"), behaviour)


@pytest.fixture
def started_pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """All processes that fake workers of this test have started, and told of, so far."""
    path = tmp_path / "started.pids"
    monkeypatch.setenv("FAKE_WORKER_PIDS", str(path))
    return lambda: [int(pid) for pid in path.read_text().split()] if path.exists() else []


@pytest.fixture
def write_ply() -> Callable[[Path], Path]:
    """Write a small model whose bytes depend on its name: fakes of it look different, and none costs any time."""
    return _write_ply


@pytest.fixture(scope="session")
def make_glb() -> Callable[..., Path]:
    return write_glb


@pytest.fixture(scope="session")
def make_box() -> Callable[..., Part]:
    return box


@pytest.fixture(scope="session")
def make_part() -> type[Part]:
    return Part
