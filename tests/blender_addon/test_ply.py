"""The splat reader: what is written comes back; what is broken is named, with its remedy. No Blender."""

from pathlib import Path

import numpy as np
import pytest

from blender_addon.errors import FixItError
from blender_addon.ply import read_splats

HEADER = "ply\nformat binary_little_endian 1.0\ncomment turntable axes y_down\nelement vertex {count}\n{properties}end_header\n"
NAMES = [
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
]  # fmt: skip


def ply(columns: np.ndarray, names: list[str] | None = None, header: str = HEADER) -> bytes:
    properties = "".join(f"property float {name}\n" for name in names or NAMES)
    return header.format(count=len(columns), properties=properties).encode() + columns.astype("<f4").tobytes()


@pytest.fixture
def columns() -> np.ndarray:
    """Seven splats of ordinary numbers."""
    return np.random.default_rng(3).normal(size=(7, len(NAMES)))


def write(folder: Path, data: bytes) -> Path:
    path = folder / "splats.ply"
    path.write_bytes(data)
    return path


def test_everything_comes_back_activated(tmp_path: Path, columns: np.ndarray) -> None:
    splats = read_splats(write(tmp_path, ply(columns)))
    expected = columns.astype(np.float32).astype(np.float64)
    # one float32 rounding after the activation
    np.testing.assert_allclose(splats.means, expected[:, :3], rtol=1e-6)
    np.testing.assert_allclose(splats.sh[:, 0], expected[:, 6:9], rtol=1e-6)
    np.testing.assert_allclose(splats.opacities, 1 / (1 + np.exp(-expected[:, 9])), rtol=1e-6)
    np.testing.assert_allclose(splats.scales, np.exp(expected[:, 10:13]), rtol=1e-6)
    norms = np.linalg.norm(expected[:, 13:17], axis=1, keepdims=True)
    np.testing.assert_allclose(splats.quaternions, expected[:, 13:17] / norms, rtol=1e-5, atol=1e-7)
    assert (splats.degree, splats.says_axes, len(splats)) == (0, True, 7)


@pytest.mark.parametrize(("rest", "degree"), [(9, 1), (24, 2), (45, 3)])
def test_harmonics_are_kept_channel_by_channel(tmp_path: Path, columns: np.ndarray, rest: int, degree: int) -> None:
    values = np.arange(7 * rest, dtype=float).reshape(7, rest)
    names = [*NAMES, *(f"f_rest_{i}" for i in range(rest))]
    splats = read_splats(write(tmp_path, ply(np.concatenate([columns, values], 1), names)))
    assert splats.degree == degree
    for channel in range(3):
        for k in range(rest // 3):
            np.testing.assert_array_equal(splats.sh[:, 1 + k, channel], values[:, channel * (rest // 3) + k])


def test_the_order_of_properties_does_not_matter(tmp_path: Path, columns: np.ndarray) -> None:
    plain = read_splats(write(tmp_path, ply(columns)))
    turned = read_splats(write(tmp_path, ply(columns[:, ::-1], NAMES[::-1])))
    np.testing.assert_array_equal(plain.quaternions, turned.quaternions)


def broken(columns: np.ndarray, row: int, column: str, value: float) -> np.ndarray:
    changed = columns.copy()
    changed[row, NAMES.index(column)] = value
    return changed


AGAIN = "Generate the splats again (--from splats), or export them as a standard 3DGS .ply."


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c: ply(c)[:-5], "splats.ply is truncated: expected 807 bytes for 7 splats, found 802. " + AGAIN),
        (lambda c: ply(c) + b"x", "splats.ply has bytes after its last splat: expected 807 bytes for 7 splats, found 808. " + AGAIN),
        (
            lambda c: ply(broken(c, 4, "opacity", np.nan)),
            "splats.ply: opacity of splat 4 is not finite (1 such values). " + AGAIN,
        ),
        (lambda c: ply(broken(c, 2, "x", np.inf)), "splats.ply: x of splat 2 is not finite (1 such values). " + AGAIN),
        (lambda c: ply(broken(c, 5, "scale_1", 200)), "splats.ply: splat 5 has no usable size or rotation. " + AGAIN),
        (lambda c: ply(c * (np.arange(17) < 13)), "splats.ply: splat 0 has no usable size or rotation. " + AGAIN),
        (lambda c: ply(c[:0]), "splats.ply: expected splats, found none. " + AGAIN),
        (lambda c: b"solid stl", "splats.ply: expected a PLY file, found no PLY header. " + AGAIN),
        (
            lambda c: ply(c).replace(b"binary_little_endian", b"ascii"),
            "splats.ply: expected format binary_little_endian, found ascii. " + AGAIN,
        ),
        (
            lambda c: ply(c).replace(b"end_header", b"element face 2\nproperty list uchar int vertex_indices\nend_header"),
            "splats.ply: expected one element `vertex` of splats, found vertex 7, face 2. This is a mesh or a compressed "
            "file: import meshes with File > Import > Stanford PLY.",
        ),
        (
            lambda c: ply(c[:, :6], NAMES[:6]),
            "splats.ply: expected the properties of 3D Gaussians, but it lacks f_dc_0, f_dc_1, f_dc_2, opacity, scale_0, "
            "scale_1, scale_2, rot_0, rot_1, rot_2, rot_3. " + AGAIN,
        ),
        (
            lambda c: ply(np.c_[c, c[:, :2]], [*NAMES, "f_rest_0", "f_rest_1"]),
            "splats.ply: expected 0, 9, 24 or 45 f_rest properties, found 2. " + AGAIN,
        ),
        (
            lambda c: ply(c).replace(b"axes y_down", b"axes sideways"),
            "splats.ply: expected axes y_down, found sideways. Update the add-on: the file is newer.",
        ),
    ],
)  # fmt: skip
def test_broken_files_are_named(tmp_path: Path, columns: np.ndarray, make, message: str) -> None:
    with pytest.raises(FixItError) as caught:
        read_splats(write(tmp_path, make(columns)))
    found = str(caught.value)
    if "bytes for" in message:  # the header's own length is not the point
        found, message = (text.split(":")[0] for text in (found, message))
    assert found == message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FixItError, match=r"^splats\.ply: cannot be read \(No such file or directory\)\. Check"):
        read_splats(tmp_path / "splats.ply")
