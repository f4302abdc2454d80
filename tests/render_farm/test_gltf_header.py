"""Points that a glTF gives by parts: what replaces some of them is looked at as well."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.files.glb import pack_glb
from render_farm.assets import load_asset
from render_farm.errors import FarmError


def refusal(path: Path) -> str:
    with pytest.raises(FarmError) as caught:
        load_asset(path)
    return str(caught.value)


def sparse_glb(path: Path, values: Any, *, has_base: bool = True) -> Path:
    """A triangle whose vertices 2 and 0 are replaced by these values, glTF 2.0 section 3.6.2.3."""
    base = np.float32([[0, 0, 0], [1, 0, 0], [np.nan, 1, 0]])
    indices, replaced = np.uint16([2, 0]), np.float32(values)
    blob = base.tobytes() + indices.tobytes() + replaced.tobytes()
    views = [(0, 36), (36, 4), (40, 24)]
    sparse = {
        "count": 2, "indices": {"bufferView": 1, "componentType": 5123}, "values": {"bufferView": 2, "byteOffset": 0},
    }  # fmt: skip
    accessor = {"componentType": 5126, "count": 3, "type": "VEC3", "sparse": sparse}
    document = {
        "asset": {"version": "2.0"}, "meshes": [{"primitives": [{"attributes": {"POSITION": 0}}]}],
        "accessors": [accessor | ({"bufferView": 0} if has_base else {})],
        "bufferViews": [{"buffer": 0, "byteOffset": start, "byteLength": size} for start, size in views],
        "buffers": [{"byteLength": len(blob)}],
    }  # fmt: skip
    path.write_bytes(pack_glb(document, blob))
    return path


@pytest.mark.parametrize("has_base", [True, False])
def test_sparse_points_that_are_no_numbers(tmp_path: Path, has_base: bool) -> None:
    whole = sparse_glb(tmp_path / "a.glb", [[0, 1, 0], [0, 0, 1]], has_base=has_base)
    assert load_asset(whole).suffix == ".glb"  # the broken vertex below is replaced
    broken = sparse_glb(tmp_path / "b.glb", [[0, 1, 0], [0, np.inf, 1]], has_base=has_base)
    assert refusal(broken) == (
        "b.glb: 1 vertices are not finite numbers, the first is vertex 0 of accessor 0; repair the mesh [not-finite]"
    )


def test_sparse_accessor_outside_its_buffer(tmp_path: Path) -> None:
    path = sparse_glb(tmp_path / "a.glb", [[0, 1, 0], [0, 0, 1]])
    path.write_bytes(path.read_bytes().replace(b'"byteOffset":0}', b'"byteOffset":4}'))
    text = refusal(path)
    assert text.startswith("a.glb: an accessor reaches outside its buffer (")
    assert text.endswith("); export it again [malformed]")
