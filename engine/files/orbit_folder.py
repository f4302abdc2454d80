"""`orbit/1` in a folder: images first, the json last. The json is the commit mark: without it there is no orbit."""

import re
from pathlib import Path

from engine.errors import OrbitError
from engine.files.atomic import sync_folder, write_bytes
from engine.files.images import Quality
from engine.files.orbit_codec import EXTENSIONS, decode_orbit, encode_orbit
from engine.files.orbit_json import OrbitDocument, decode_document
from engine.files.types import OrbitImages

PLAIN_NAME = "orbit.json"
"""The json's name in the output folder of one generation."""


def write_orbit(
    folder: Path, images: OrbitImages, *, json_name: str | None = None, quality: Quality = "lossless"
) -> Path:
    """Write a sample and return the path of its json.

    Everything is encoded and checked before the folder is touched. An older json of the same name goes first, so that
    a reader finds a whole sample or none, whenever the writer is killed. On failure no file of the sample remains.

    Args:
        folder: is made where missing.
        images: the sample.
        json_name: the json's file name; KEY.ORBIT.json by default, `orbit.json` in output folders.
        quality: WebP quality of rgba and albedo, or exact.

    Raises:
        OrbitError: the sample is not a valid orbit.
        TurntableError: the file system refused.
    """
    encoded = encode_orbit(images, quality)
    json_path = folder / (json_name or f"{encoded.sample}.json")
    if json_path.suffix != ".json" or json_path.parent != folder:
        raise ValueError(f"json_name must be a file name ending in .json, got {json_name!r}")
    if folder.is_dir():
        json_path.unlink(missing_ok=True)
        _remove_images(folder, encoded.sample)
        sync_folder(folder)
    try:
        for name, data in encoded.images.items():
            write_bytes(folder / name, data, sync=False)
        sync_folder(folder)
        write_bytes(json_path, encoded.json)
    except BaseException:
        _remove_images(folder, encoded.sample)
        raise
    return json_path


def _remove_images(folder: Path, sample: str) -> None:
    """Also images of a former write with more views or kinds, which would be taken for this one's."""
    pattern = re.compile(re.escape(sample) + rf"\.({'|'.join(EXTENSIONS)})_\d+\.(webp|png)")
    for path in folder.iterdir() if folder.is_dir() else ():
        if pattern.fullmatch(path.name):
            path.unlink(missing_ok=True)


def find_orbit(path: Path, which: str | None = None) -> Path:
    """Return the json that `path` means: itself, or the only orbit json in a folder.

    Args:
        path: a json, or a folder.
        which: KEY.ORBIT, KEY, ORBIT or the json's file name, where a folder holds several.

    Raises:
        OrbitError: there is none, or more than one.
    """
    if not path.is_dir():
        if not path.is_file():
            raise OrbitError(f"{path}: there is no such orbit; give a folder that holds one, or its json")
        return path
    found = sorted(p for p in path.glob("*.json") if p.name == PLAIN_NAME or p.name.count(".") >= 2)
    if which is not None:
        found = [p for p in found if which == p.name or f".{which}." in f".{p.name.removesuffix('json')}"]
    if len(found) == 1:
        return found[0]
    asked = f" called {which}" if which else ""
    if not found:
        raise OrbitError(
            f"{path}: holds no orbit json{asked} (KEY.ORBIT.json or {PLAIN_NAME}); was its writing cut off?"
        )
    names = ", ".join(p.name for p in found[:4]) + (", ..." if len(found) > 4 else "")
    raise OrbitError(f"{path}: holds {len(found)} orbits{asked} ({names}); say which")


def load_document(path: Path) -> OrbitDocument:
    """Read and check a json without its images. Raises OrbitError."""
    return decode_document(_read(path), str(path))


def read_orbit(path: Path, which: str | None = None) -> OrbitImages:
    """Read a sample from its json or its folder (see `find_orbit`). Raises OrbitError for anything that is not valid."""
    json_path = find_orbit(path, which)
    folder = json_path.parent

    def fetch(name: str) -> bytes | None:
        return _read(folder / name) if (folder / name).is_file() else None

    return decode_orbit(load_document(json_path), fetch, str(folder))


def validate_orbit(path: Path, which: str | None = None) -> None:
    """Raise OrbitError unless the json and every image of a sample are valid; decodes all of them."""
    read_orbit(path, which)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OrbitError(f"{path}: cannot be read: {error.strerror}") from error
