"""A folder of assets, and all below it."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from render_farm.assets import FORMATS
from render_farm.catalogue.entry import Entry, plain_text, unique_uids
from render_farm.errors import RunError
from render_farm.gltf_budget import part_uris, place_of
from render_farm.records import Provenance

LOG = logging.getLogger(__name__)


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
        Entry(uid, root / place, Provenance(source=plain_text(place)))
        for uid, place in zip(unique_uids(places), places, strict=True)
    ]


def _models(folder: Path) -> Iterator[str]:
    """Relative paths with '/'."""
    for base, folders, names in os.walk(folder, onerror=_passed_over):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            if Path(name).suffix.lower() in FORMATS and not _is_hidden(name):
                yield (Path(base) / name).relative_to(folder).as_posix()


def _passed_over(error: OSError) -> None:
    LOG.warning("%s cannot be looked into (%s): what is in it is left out", error.filename, error.strerror)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _parts(folder: Path, place: str) -> Iterator[str]:
    """Files that a .gltf names, relative to the folder; a broken .gltf names none and is refused later."""
    try:
        document = json.loads((folder / place).read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    for uri in part_uris(document):
        yield Path(os.path.normpath(place_of(Path(place), uri))).as_posix()
