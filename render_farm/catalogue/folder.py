"""A folder of assets, and all below it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from render_farm.assets import FORMATS
from render_farm.catalogue.entry import Entry, unique_uids
from render_farm.errors import RunError
from render_farm.records import Provenance


def folder_entries(folder: Path) -> list[Entry]:
    """Return every model in a folder, sorted by path; names that begin with '.' or '__MACOSX' are passed over.

    What a .gltf names as its buffer or texture is part of it, not an asset. Links to files are followed, links to
    folders are not.

    Raises:
        RunError: there is no such folder, or no model in it.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "nothing"
        raise RunError(f"{folder}: expected a folder of assets, found {what}; check the path")
    places = sorted(_models(folder))
    parts = {part for place in places if place.lower().endswith(".gltf") for part in _parts(folder, place)}
    places = [place for place in places if place not in parts]
    if not places:
        raise RunError(f"{folder}: found no model in it; expected files ending in {' '.join(FORMATS)}")
    root = folder.resolve()
    return [
        Entry(uid, root / place, Provenance(source=_shown(place)))
        for uid, place in zip(unique_uids(places), places, strict=True)
    ]


def _models(folder: Path) -> Iterator[str]:
    """Relative paths with '/'."""
    for base, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            if Path(name).suffix.lower() in FORMATS and not _is_hidden(name):
                yield (Path(base) / name).relative_to(folder).as_posix()


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _parts(folder: Path, place: str) -> Iterator[str]:
    """Files that a .gltf names, relative to the folder; a broken .gltf names none and is refused later."""
    path = folder / place
    try:
        document = json.loads(path.read_bytes())
        items = [*document.get("buffers", ()), *document.get("images", ())]
        uris = [item["uri"] for item in items if isinstance(item.get("uri"), str)]
    except (OSError, ValueError, AttributeError, TypeError):
        return
    for uri in uris:
        if not uri.startswith("data:"):
            named = os.path.normpath(path.parent.relative_to(folder) / unquote(uri))
            yield Path(named).as_posix()


def _shown(place: str) -> str:
    """A file's name may be no Unicode; what is written about it is."""
    return place.encode(errors="surrogateescape").decode(errors="replace")
