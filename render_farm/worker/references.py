"""Files that a model names and that are not there, where Blender's importer drops the name without a trace."""

import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import bpy

HEAD_BYTES = 1 << 16
"""An OBJ names its material libraries before its first face."""


def missing_references(path: Path, suffix: str) -> list[str]:
    """Return one sentence for each file that an OBJ (materials), a PLY or Collada file (textures) or a .blend (libraries)
    lacks."""
    if suffix == ".obj":
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES).decode(errors="replace")
        names = [name.strip() for name in re.findall(r"^mtllib[ \t]+(.+)$", head, re.MULTILINE)]
        return [
            f"material library {name!r} is missing: rendered with a neutral colour"
            for name in names
            if not (path.parent / name).is_file() and not all((path.parent / n).is_file() for n in name.split())
        ]
    if suffix == ".dae":
        text = path.read_text(errors="replace")
        images = re.search(r"<library_images>(.*?)</library_images>", text, re.DOTALL)
        uris = re.findall(r"<(?:init_from|ref)>([^<]+)</", images[1]) if images else []
        return [
            f"texture {place.name!r} is missing: rendered with a neutral colour"
            for place in (path.parent / unquote(urlparse(uri.strip()).path) for uri in uris)
            if not place.is_file()
        ]
    if suffix == ".ply":
        name = ply_texture(path)
        gone = name is not None and not (path.parent / name).is_file()
        return [f"texture {name!r} is missing: rendered with a neutral colour"] if gone else []
    if suffix == ".blend":
        libraries = [Path(bpy.path.abspath(library.filepath)) for library in bpy.data.libraries]
        return [
            f"library {library.name!r} is missing: what it holds is left out"
            for library in libraries
            if not library.is_file()
        ]
    return []


def ply_texture(path: Path) -> str | None:
    """Return the picture that a PLY names as MeshLab does, in a comment of its header."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES).partition(b"end_header")[0].decode(errors="replace")
    found = re.search(r"^comment[ \t]+TextureFile[ \t]+(.+?)\s*$", head, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else None
