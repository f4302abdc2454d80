"""3D Gaussian splats as the PLY that viewers and trainers exchange (INRIA's 3DGS layout; facts in the code below).

SplatArrays in our +Z-up world go out to the +Y-down world that INRIA's COLMAP scenes and TRELLIS use
(`frames.SPLAT_FROM_Z_UP`): means, rotations and spherical harmonics are all rotated. Header comments say so, and how
to go back; reading honours them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from engine.errors import FileFormatError
from engine.files.atomic import write_bytes
from engine.files.ply_parser import PlyHeader, format_header, parse_header, read_columns
from engine.files.types import SplatArrays
from engine.geometry.frames import SPLAT_FROM_Z_UP, Y_UP_FROM_Z_UP
from engine.geometry.harmonics import rotate_sh
from engine.geometry.rotations import quaternion_from_matrix

logger = logging.getLogger(__name__)

Axes = Literal["y_down", "y_up", "z_up"]
FROM_Z_UP: Mapping[str, Float[np.ndarray, "3 3"]] = {
    "y_down": SPLAT_FROM_Z_UP,
    "y_up": Y_UP_FROM_Z_UP,
    "z_up": np.eye(3),
}
"""Our world to the file's, by the name in the file's comment. LGM writes y_up."""
AXES_COMMENT = "turntable axes "
COMMENTS = (
    AXES_COMMENT + "y_down",
    "to +Z up: (x, y, z) -> (x, z, -y), that is +90 degrees about X; rotate rot_* and f_rest_* too",
    "raw values: opacity is a logit, scale_* natural logarithms, rot_* w x y z, f_dc and f_rest spherical harmonics",
)
REST_COUNTS = (0, 9, 24, 45)
"""f_rest properties of degree 0 to 3: three channels of 0, 3, 8, 15."""
REQUIRED = (
    "x",
    "y",
    "z",
    "f_dc_0",
    "f_dc_1",
    "f_dc_2",
    "opacity",
    "scale_0",
    "scale_1",
    "rot_0",
    "rot_1",
    "rot_2",
    "rot_3",
)
ACTIVATED_ROWS = 8
"""Fewer rows can look activated by chance."""
SURFEL_THICKNESS = 0.01
"""Third axis of a 2D Gaussian (Huang et al. 2024) as a part of its thinner one: the kind of file has none, a 3D
renderer needs one, and 1 % changes the footprint only where the disc is seen within half a degree of edge-on."""


def write_splats(path: Path, splats: SplatArrays) -> None:
    """Write splats as binary little-endian float PLY, all or nothing.

    Raises:
        FileFormatError: no splats, values that are not finite, zero quaternions, or activated instead of raw values.
        TurntableError: the file system refused.
    """
    if not len(splats):
        raise FileFormatError(f"{path}: holds no splats")
    _check(_columns(splats), str(path))  # before they are turned, which would spread a NaN over the row
    columns = _columns(rotate_splats(splats, SPLAT_FROM_Z_UP))
    table = np.stack(list(columns.values()), -1).astype("<f4")
    write_bytes(path, format_header("vertex", len(table), list(columns), COMMENTS) + table.tobytes())


def _columns(splats: SplatArrays) -> dict[str, Float[np.ndarray, " n"]]:
    """Name the columns in INRIA's order; f_rest is channel-major (all red, then green, then blue)."""
    rest = np.swapaxes(splats.sh[:, 1:], 1, 2).reshape(len(splats), -1)  # [n, 3 * (k - 1)]
    zeros = np.zeros(len(splats), np.float32)
    columns = {name: splats.means[:, i] for i, name in enumerate("xyz")}
    columns |= dict.fromkeys(("nx", "ny", "nz"), zeros)  # unused, but some viewers expect them
    columns |= {f"f_dc_{i}": splats.sh[:, 0, i] for i in range(3)}
    columns |= {f"f_rest_{i}": rest[:, i] for i in range(rest.shape[1])}
    columns["opacity"] = splats.opacity_logits
    columns |= {f"scale_{i}": splats.log_scales[:, i] for i in range(3)}
    columns |= {f"rot_{i}": splats.quaternions[:, i] for i in range(4)}
    return columns


def read_splats(path: Path, *, axes: Axes | Literal["auto"] = "auto") -> SplatArrays:
    """Read splats into our +Z-up world as float32, quaternions normalised.

    Args:
        path: a 3DGS PLY; properties in any order and of any type, binary or ASCII, normals not needed.
        axes: the file's world. "auto" takes the file's own comment, and "y_down" for files without one.

    Raises:
        FileFormatError: not a splat PLY, truncated, or values that cannot be raw splats; the message names the row.
    """
    name = str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{name}: cannot be read: {error.strerror}") from error
    header = parse_header(data, name)
    _check_kind(header, name)
    columns = dict(read_columns(data, header, "vertex", name))
    if "scale_2" not in columns:
        logger.warning("%s holds 2D Gaussians (no scale_2): given a third axis of %g", name, SURFEL_THICKNESS)
        columns["scale_2"] = np.minimum(columns["scale_0"], columns["scale_1"]) + np.log(SURFEL_THICKNESS)
    _check(columns, name)
    found = _axes_of(header, name) if axes == "auto" else axes
    return rotate_splats(_splats(columns), FROM_Z_UP[found].T)


def _splats(columns: Mapping[str, np.ndarray]) -> SplatArrays:
    def table(*names: str) -> Float[np.ndarray, "n c"]:
        return np.stack([np.asarray(columns[name], np.float32) for name in names], -1)

    rest_names = [f"f_rest_{i}" for i in range(sum(name.startswith("f_rest_") for name in columns))]
    sh = table("f_dc_0", "f_dc_1", "f_dc_2")[:, None]  # [n, 1, 3]
    if rest_names:
        rest = table(*rest_names).reshape(len(sh), 3, -1)
        sh = np.concatenate([sh, np.swapaxes(rest, 1, 2)], 1)
    return SplatArrays(
        means=table("x", "y", "z"),
        log_scales=table("scale_0", "scale_1", "scale_2"),
        quaternions=table("rot_0", "rot_1", "rot_2", "rot_3"),
        opacity_logits=np.asarray(columns["opacity"], np.float32),
        sh=sh,
    )


def rotate_splats(splats: SplatArrays, rotation: Float[np.ndarray, "3 3"]) -> SplatArrays:
    """Rotate the world that splats stand in: p' = rotation @ p. Quaternions come out normalised (zero ones stay zero)."""
    w, x, y, z = quaternion_from_matrix(rotation)
    left = np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]])  # left @ q = rotation * q
    quaternions = splats.quaternions.astype(np.float64)
    length = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    turned = quaternions @ left.T / np.where(length > 0, length, 1)
    return SplatArrays(
        means=(splats.means @ rotation.T.astype(splats.means.dtype)),
        log_scales=splats.log_scales,
        quaternions=turned.astype(splats.quaternions.dtype),
        opacity_logits=splats.opacity_logits,
        sh=splats.sh if np.array_equal(rotation, np.eye(3)) else rotate_sh(splats.sh, rotation),
    )


def _axes_of(header: PlyHeader, name: str) -> Axes:
    said = [comment.removeprefix(AXES_COMMENT) for comment in header.comments if comment.startswith(AXES_COMMENT)]
    match said:
        case []:
            return "y_down"
        case ["y_down"]:
            return "y_down"
        case ["y_up"]:
            return "y_up"
        case ["z_up"]:
            return "z_up"
    raise FileFormatError(f"{name}: its axes comment must say one of {', '.join(FROM_Z_UP)}, found {', '.join(said)}")


def _check_kind(header: PlyHeader, name: str) -> None:
    face, vertex = header.element("face"), header.element("vertex")
    if face is not None and face.count:
        raise FileFormatError(f"{name}: is a mesh ({face.count} faces), expected 3D Gaussian splats; read it as a mesh")
    if header.element("chunk") is not None:
        raise FileFormatError(f"{name}: is a SuperSplat-compressed PLY; export it again as an uncompressed PLY")
    if vertex is None or not vertex.count:
        raise FileFormatError(f"{name}: holds no splats (no rows of element vertex)")
    properties = {column for column, _ in vertex.properties}
    missing = [column for column in REQUIRED if column not in properties]
    if missing:
        raise FileFormatError(f"{name}: is not a 3DGS PLY: property {missing[0]} is missing ({len(missing)} in all)")
    rest = {column for column in properties if column.startswith("f_rest_")}
    if len(rest) not in REST_COUNTS or rest != {f"f_rest_{i}" for i in range(len(rest))}:
        raise FileFormatError(
            f"{name}: must have f_rest_0 .. f_rest_(n-1) with n one of {', '.join(map(str, REST_COUNTS))} (degree 0 to "
            f"3), found {len(rest)}"
        )


def _check(columns: Mapping[str, np.ndarray], name: str) -> None:
    """Values that every reader downstream may rely on."""
    for column, values in columns.items():
        if column in ("nx", "ny", "nz"):
            continue
        with np.errstate(over="ignore"):
            bad = np.flatnonzero(~np.isfinite(np.asarray(values, np.float32)))
        if len(bad):
            raise FileFormatError(
                f"{name}: row {bad[0]} has {column} = {values[bad[0]]}, expected a finite number "
                f"({len(bad)} such rows); drop these splats"
            )
    zero = np.flatnonzero(sum(np.square(columns[f"rot_{i}"], dtype=np.float64) for i in range(4)) < 1e-24)
    if len(zero):
        raise FileFormatError(
            f"{name}: row {zero[0]} has a zero quaternion, which is no rotation ({len(zero)} such rows)"
        )
    _check_raw(columns, name)


def _check_raw(columns: Mapping[str, np.ndarray], name: str) -> None:
    """Reject activated values (supersplat-viewer issue 253): they load everywhere and look like fog.

    Raw, the same numbers would mean that every opacity lies between 0.5 and 0.73 and that every splat is larger than
    a metre along all its axes. No scene is like that; one of the two alone could be, so both are asked for.
    """
    opacity = columns["opacity"]
    if len(opacity) < ACTIVATED_ROWS or opacity.min() < 0 or opacity.max() > 1:
        return
    if all(columns[f"scale_{i}"].min() > 0 for i in range(2)):  # the third may be made up
        raise FileFormatError(
            f"{name}: holds activated values (every opacity in [0, 1], every scale above 0), expected raw ones: "
            "write logit(opacity) and log(scale)"
        )
