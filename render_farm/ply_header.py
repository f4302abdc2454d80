"""PLY before Blender: is the file whole, are its points numbers? Blender moves points that are none to the origin.

G. Turk, The PLY Polygon File Format (1994).
"""

import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np

from render_farm.errors import FarmError

SCALARS = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
NOT_A_NUMBER = re.compile(rb"(?<![A-Za-z])[-+]?(nan|inf)", re.IGNORECASE)
HEADER_END = b"end_header"
LONGEST_HEADER = 1 << 20


def check_ply(path: Path, size_bytes: int, max_triangles: int) -> None:
    """Raise FarmError for a PLY that is cut off, holds points that are no numbers, or more faces than triangles allowed."""
    with path.open("rb") as file:
        start = file.read(LONGEST_HEADER)
    if not start.startswith(b"ply"):
        raise FarmError("malformed", f"{path.name}: expected a ply file, found one that begins with {start[:8]!r}; is the "
                        "suffix right?")  # fmt: skip
    end = start.find(HEADER_END)
    if end < 0:
        raise FarmError("truncated", f"{path.name}: truncated PLY: its header has no end; fetch it again")
    body = start.find(b"\n", end) + 1
    faces = re.search(rb"^element face (\d{1,18})\s*$", start[:end], re.MULTILINE)
    if faces is not None and int(faces[1]) > max_triangles:
        raise FarmError("too-large", f"{path.name}: {int(faces[1])} faces, more than the {max_triangles} triangles allowed "
                        "(max_triangles)")  # fmt: skip
    kind, count, vertex = _parse_header(path.name, start[:end].decode("ascii", "replace"))
    if kind == "ascii":
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            broken = NOT_A_NUMBER.search(mapped, body) is not None
    elif vertex is None:
        return  # lists among the vertices, or another element first: only reading all of it would tell
    else:
        needed = body + count * vertex.itemsize
        if size_bytes < needed:
            raise FarmError("truncated", f"{path.name}: truncated PLY: its {count} vertices need {needed} bytes, the file "
                            f"holds {size_bytes}; fetch it again")  # fmt: skip
        points = np.memmap(path, vertex, "r", body, count) if count else np.empty(0, vertex)
        broken = not all(np.isfinite(points[axis]).all() for axis in "xyz")
    if broken:
        raise FarmError("not-finite", f"{path.name}: some vertices are not finite numbers; repair the mesh")


def _parse_header(name: str, header: str) -> "tuple[str, int, np.dtype[Any] | None]":
    """Return the encoding, the number of vertices, and a vertex's layout if it is first and of fixed size."""
    lines = [line.split() for line in header.splitlines() if line.strip()]
    kinds = [line[1] for line in lines if line[0] == "format" and len(line) > 1]
    elements = [i for i, line in enumerate(lines) if line[0] == "element"]
    if not kinds or not elements or lines[elements[0]][1:2] != ["vertex"]:
        return (kinds or ["unknown"])[0], 0, None
    last = elements[1] if len(elements) > 1 else len(lines)
    properties = [line for line in lines[elements[0] + 1 : last] if line[0] == "property"]
    if not all(len(p) == 3 and p[1] in SCALARS for p in properties) or not {"x", "y", "z"} <= {
        p[-1] for p in properties
    }:
        return kinds[0], 0, None
    order = ">" if kinds[0] == "binary_big_endian" else "<"
    try:
        count = int(lines[elements[0]][2])
        if count < 0:
            raise ValueError(f"{count} vertices")
        return kinds[0], count, np.dtype([(p[2], order + SCALARS[p[1]]) for p in properties])
    except (ValueError, IndexError) as error:
        raise FarmError("malformed", f"{name}: its PLY header cannot be read ({error}); export it again") from error
