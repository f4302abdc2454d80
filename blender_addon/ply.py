"""3D Gaussian splat PLY files: a path goes in, checked arrays come out. Only numpy, no Blender.

The files are what INRIA's trainer writes (Kerbl et al. 2023): one `vertex` element, every property a number, in a world
whose Y axis points down. Arrays stay in the file's world; `splat_frames.to_z_up` turns them into Blender's.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import FixItError

HEADER_LIMIT = 64 * 1024  # bytes; real headers have about 1,500
REQUIRED = (
    "x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1",
    "rot_2", "rot_3",
)  # fmt: skip
REST_COUNTS = {0: 0, 9: 1, 24: 2, 45: 3}
"""Number of f_rest properties -> degree of the spherical harmonics."""
DTYPES = {
    "float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8", "uchar": "u1", "uint8": "u1", "char": "i1",
    "int8": "i1", "ushort": "<u2", "uint16": "<u2", "short": "<i2", "int16": "<i2", "uint": "<u4", "uint32": "<u4",
    "int": "<i4", "int32": "<i4",
}  # fmt: skip
AGAIN = "Generate the splats again (--from splats), or export them as a standard 3DGS .ply."


@dataclass(frozen=True)
class Splats:
    """Gaussians with activated parameters."""

    means: np.ndarray
    """[n, 3] float32: centres."""
    scales: np.ndarray
    """[n, 3] float32: standard deviations along the splat's own axes, above 0."""
    quaternions: np.ndarray
    """[n, 4] float32: w x y z, unit length; the splat's own axes to the world."""
    opacities: np.ndarray
    """[n] float32: 0 to 1."""
    sh: np.ndarray
    """[n, k, 3] float32: harmonics, k = 1, 4, 9 or 16; colour = 0.5 + sum(basis * sh), sRGB."""
    says_axes: bool
    """True if the file names its axes in a comment."""

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return int(np.sqrt(self.sh.shape[1])) - 1


@dataclass(frozen=True)
class Header:
    """What stands before the numbers."""

    count: int
    """Number of splats."""
    dtype: np.dtype
    """One splat's record."""
    size: int
    """Bytes of the header."""
    says_axes: bool
    """True if it names its axes."""


def read_splats(path: Path) -> Splats:
    """Read a splat PLY. Raises FixItError for anything else, for truncated files and for numbers that are not finite."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FixItError(
            f"{path.name}: cannot be read ({error.strerror})", "Check the file's place and rights."
        ) from None
    header = _parse_header(data, path.name)
    expected = header.size + header.count * header.dtype.itemsize
    if len(data) != expected:
        kind = "is truncated" if len(data) < expected else "has bytes after its last splat"
        raise FixItError(
            f"{path.name} {kind}: expected {expected} bytes for {header.count} splats, found {len(data)}", AGAIN
        )
    records = np.frombuffer(data, header.dtype, header.count, header.size)
    return _activate(records, header, path.name)


def _parse_header(data: bytes, name: str) -> Header:
    end = data.find(b"end_header\n", 0, HEADER_LIMIT)
    if not data.startswith(b"ply") or end < 0:
        raise FixItError(f"{name}: expected a PLY file, found no PLY header", AGAIN)
    lines = [line.split() for line in data[:end].decode("ascii", "replace").splitlines()]
    formats = [words[1] for words in lines if words[:1] == ["format"] and len(words) > 1]
    if formats != ["binary_little_endian"]:
        raise FixItError(f"{name}: expected format binary_little_endian, found {' '.join(formats) or 'none'}", AGAIN)
    elements = [words for words in lines if words[:1] == ["element"]]
    if len(elements) != 1 or elements[0][1:2] != ["vertex"] or len(elements[0]) != 3 or not elements[0][2].isdigit():
        found = ", ".join(" ".join(words[1:]) for words in elements) or "none"
        raise FixItError(
            f"{name}: expected one element `vertex` of splats, found {found}",
            "This is a mesh or a compressed file: import meshes with File > Import > Stanford PLY.",
        )
    dtype = _record([words[1:] for words in lines if words[:1] == ["property"]], name)
    axes = [words[3] for words in lines if words[:3] == ["comment", "turntable", "axes"] and len(words) > 3]
    if axes not in ([], ["y_down"]):
        raise FixItError(
            f"{name}: expected axes y_down, found {' '.join(axes)}", "Update the add-on: the file is newer."
        )
    return Header(int(elements[0][2]), dtype, end + len(b"end_header\n"), bool(axes))


def _record(properties: list[list[str]], name: str) -> np.dtype:
    """Return the dtype of one splat; raise FixItError unless all that a splat needs is there."""
    bad = [" ".join(words) for words in properties if len(words) != 2 or words[0] not in DTYPES]
    if bad:
        raise FixItError(f"{name}: expected properties that are single numbers, found `{bad[0]}`", AGAIN)
    names = [words[1] for words in properties]
    missing = [wanted for wanted in REQUIRED if wanted not in names]
    if missing or len(set(names)) != len(names):
        what = f"lacks {', '.join(missing)}" if missing else "names a property twice"
        raise FixItError(f"{name}: expected the properties of 3D Gaussians, but it {what}", AGAIN)
    rest = sum(wanted.startswith("f_rest_") for wanted in names)
    if rest not in REST_COUNTS or any(f"f_rest_{i}" not in names for i in range(rest)):
        raise FixItError(f"{name}: expected 0, 9, 24 or 45 f_rest properties, found {rest}", AGAIN)
    return np.dtype([(label, DTYPES[kind]) for kind, label in properties])


def _activate(records: np.ndarray, header: Header, name: str) -> Splats:
    if not header.count:
        raise FixItError(f"{name}: expected splats, found none", AGAIN)

    def columns(*names: str) -> np.ndarray:
        return np.stack([records[column].astype(np.float32) for column in names], -1)

    rest = sum(column.startswith("f_rest_") for column in header.dtype.names or ())
    raw = {column: records[column] for column in (*REQUIRED, *(f"f_rest_{i}" for i in range(rest)))}
    for column, values in raw.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise FixItError(f"{name}: {column} of splat {bad[0]} is not finite ({len(bad)} such values)", AGAIN)
    with np.errstate(over="ignore", under="ignore"):
        scales = np.exp(columns("scale_0", "scale_1", "scale_2"))
        opacities = 1 / (1 + np.exp(-columns("opacity")[:, 0]))
    quaternions = columns("rot_0", "rot_1", "rot_2", "rot_3")
    norms = np.linalg.norm(quaternions, axis=1, keepdims=True)
    if not (np.isfinite(scales).all() and (scales > 0).all() and (norms > 0).all()):
        first = int(np.argmin(((scales > 0) & np.isfinite(scales)).all(1) & (norms[:, 0] > 0)))
        raise FixItError(f"{name}: splat {first} has no usable size or rotation", AGAIN)
    sh = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    if rest:  # the file keeps all of red, then all of green, then all of blue
        others = columns(*(f"f_rest_{i}" for i in range(rest))).reshape(len(records), 3, rest // 3)
        sh = np.concatenate([sh, others.transpose(0, 2, 1)], 1)
    return Splats(columns("x", "y", "z"), scales, quaternions / norms, opacities, sh, header.says_axes)
