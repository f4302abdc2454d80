"""An asset on disk: path in, a checked `Asset` out, before Blender is started.

What can be known from the bytes is said here, by name: a file that is not there, a format nobody reads, a web page that a
download saved as a model, a GLB that was cut off, a glTF extension that Blender would refuse, more triangles or texture
pixels than a run allows. `gltf_header.py` and `ply_header.py` read theirs.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from render_farm.errors import FarmError
from render_farm.gltf_budget import part_uris, place_of
from render_farm.gltf_header import check_glb, check_gltf
from render_farm.ply_header import check_ply
from render_farm.spec import AssetPolicy

FORMATS = (".glb", ".gltf", ".obj", ".fbx", ".ply", ".stl", ".usd", ".usda", ".usdc", ".usdz", ".dae", ".abc", ".blend")
"""What the worker imports, by suffix."""
CHECKS_VERSION = 3
"""Raised whenever the same file may pass or fail where it did not before: what was found out earlier is then forgotten."""
MAGIC: dict[str, tuple[bytes, ...]] = {
    ".usdc": (b"PXR-USDC",),
    ".usda": (b"#usda",),
    ".usdz": (b"PK\x03\x04",),
    ".usd": (b"PXR-USDC", b"#usda"),
    # plain; gzip and zstd, as older and newer Blenders compress
    ".blend": (b"BLENDER", b"\x1f\x8b", b"\x28\xb5\x2f\xfd"),
    ".fbx": (b"Kaydara FBX Binary", b";", b"FBX"),
    # Ogawa; the older HDF5 kind is read by few Blenders
    ".abc": (b"Ogawa",),
}
"""How a file of each format begins."""
DISGUISES: tuple[tuple[bytes, str, str], ...] = (
    (b"<!doctype html", "a web page", "the download saved an error page: fetch it again"),
    (b"<html", "a web page", "the download saved an error page: fetch it again"),
    (b'<?xml version="1.0" encoding="utf-8"?><error>', "a server's error message", "fetch it again"),
    (b"version https://git-lfs", "a Git LFS pointer", "run 'git lfs pull' where it came from"),
    (b"pk\x03\x04", "a ZIP archive", "unpack it and name the model in it"),
    (b"\x1f\x8b", "a gzip archive", "unpack it with gunzip or tar"),
    (b"rar!", "a RAR archive", "unpack it and name the model in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and name the model in it"),
)
"""What is saved under a model's name by mistake: how it begins (small letters), what it is, what to do."""
NOT_ALLOWED = re.compile(r"[^A-Za-z0-9_-]+")
LONGEST_UID = 120
"""File names hold it, and much besides: 255 bytes in all."""
HASH_BYTES = 6
STL_HEADER_BYTES, STL_TRIANGLE_BYTES = 84, 50


@dataclass(frozen=True)
class Asset:
    """A model file that may be given to the worker."""

    path: Path
    """Absolute."""
    suffix: str
    """Format: lower case, with the dot."""
    sha256: str
    """Of its bytes, hexadecimal; of a .gltf that names files, of theirs as well: they are the model."""
    uid: str
    """Its name in file names: letters, digits, '_', '-'."""
    size_bytes: int
    """Its size."""


def uid_from_name(name: str) -> str:
    """Return a file's stem as an id: runs of anything but letters, digits, '_' and '-' become one '_'.

    Dots go too, since the names of an orbit's files are split at them. Long ones end with a hash of the whole name.
    """
    uid = NOT_ALLOWED.sub("_", Path(name).stem).strip("_") or "object"
    return uid if len(uid) <= LONGEST_UID else hashed_uid(uid, name)


def hashed_uid(uid: str, name: str) -> str:
    """Return an id that ends with a hash of the whole name: for names that are too long, or would become one id."""
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=HASH_BYTES).hexdigest()
    return f"{uid[: LONGEST_UID - 1 - 2 * HASH_BYTES]}_{digest}"


def check_uid(uid: str) -> str | None:
    """Return what is wrong with a uid, or None."""
    if not uid or NOT_ALLOWED.search(uid):
        return f"a uid must hold letters, digits, '_' and '-' only, got {uid!r}"
    if len(uid) > LONGEST_UID:
        return f"a uid must have at most {LONGEST_UID} characters, got {len(uid)}: {uid!r}"
    return None


def load_asset(path: Path, uid: str | None = None, policy: AssetPolicy | None = None) -> Asset:
    """Check a model file and hash it.

    Args:
        path: the file.
        uid: its id; from the file's name by default.
        policy: what is too large; the defaults by default.

    Raises:
        FarmError: it is not there, not a file, of no known format, or visibly broken.
    """
    problem = None if uid is None else check_uid(uid)
    if uid is not None and problem is not None:
        raise FarmError("malformed", f"{problem}; try {uid_from_name(uid + '.x')!r}")
    try:
        if not path.exists():
            raise FarmError("missing-file", f"{path}: there is no such file; check the path")
        if not path.is_file():
            raise FarmError("not-a-file", f"{path}: expected a model file, found a folder; name one file in it")
        suffix = path.suffix.lower()
        if suffix not in FORMATS:
            raise FarmError("unknown-format", f"{path.name}: expected one of {' '.join(FORMATS)}, found "
                            f"{suffix or 'no suffix'!r}; convert it to .glb")  # fmt: skip
        size_bytes = path.stat().st_size
        check_header(path, suffix, size_bytes, policy or AssetPolicy())
        digest = _digest(path, suffix)
    except OSError as error:
        raise FarmError("not-a-file", f"{path}: cannot be read: {error.strerror}; check its permissions") from error
    return Asset(path.resolve(), suffix, digest, uid or uid_from_name(path.name), size_bytes)


def check_header(path: Path, suffix: str, size_bytes: int, policy: AssetPolicy) -> None:
    """Raise FarmError if the file's beginning already shows that it is empty, cut off, too large or something else."""
    if size_bytes == 0:
        raise FarmError("truncated", f"{path.name}: the file is empty; fetch it again")
    if size_bytes > policy.max_file_bytes:
        raise FarmError("too-large", f"{path.name}: {size_bytes} bytes, more than the {policy.max_file_bytes} allowed "
                        "(max_file_bytes)")  # fmt: skip
    _check_disguise(path, suffix)
    if suffix == ".glb":
        check_glb(path, size_bytes, policy)
    elif suffix == ".gltf":
        check_gltf(path, policy)
    elif suffix == ".ply":
        check_ply(path, size_bytes, policy.max_triangles)
    elif suffix == ".stl":
        _check_stl(path, size_bytes, policy.max_triangles)
    elif suffix in MAGIC:
        with path.open("rb") as file:
            start = file.read(32)
        if not start.startswith(MAGIC[suffix]):
            raise FarmError("malformed", f"{path.name}: expected a {suffix[1:]} file, found one that begins with "
                            f"{start[:8]!r}; is the suffix right?")  # fmt: skip


def _check_disguise(path: Path, suffix: str) -> None:
    """Archives, web pages and the like under a model's name."""
    with path.open("rb") as file:
        start = file.read(256)
    if start.startswith(MAGIC.get(suffix, (b"\x00",))):
        return  # .usdz is a ZIP archive, .blend may be compressed
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for magic, name, remedy in DISGUISES:
        if start.startswith(magic):
            raise FarmError("malformed", f"{path.name}: expected a {suffix[1:]} file, found {name}; {remedy}")


def _check_stl(path: Path, size_bytes: int, max_triangles: int) -> None:
    """A binary STL says how many triangles it holds; an ASCII one begins with 'solid' (as some binary ones do)."""
    with path.open("rb") as file:
        header = file.read(STL_HEADER_BYTES)
    if header.lstrip().startswith(b"solid") and b"\x00" not in header:
        return
    count = int.from_bytes(header[80:84], "little")
    expected = STL_HEADER_BYTES + STL_TRIANGLE_BYTES * count
    if size_bytes < expected or len(header) < STL_HEADER_BYTES:
        raise FarmError("truncated", f"{path.name}: truncated STL: its header promises {expected} bytes, the file "
                        f"holds {size_bytes}; fetch it again")  # fmt: skip
    if count > max_triangles:
        raise FarmError(
            "too-large", f"{path.name}: {count} triangles, more than the {max_triangles} allowed (max_triangles)"
        )


def _digest(path: Path, suffix: str) -> str:
    parts = part_uris(json.loads(path.read_bytes())) if suffix == ".gltf" else []
    own = sha256_of(path)
    if not parts:
        return own
    places = [place_of(path, uri) for uri in parts]
    digests = [own, *(sha256_of(place) if place.is_file() else "" for place in places)]
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the hash of a file's bytes, hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
