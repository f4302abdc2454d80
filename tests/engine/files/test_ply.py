"""3DGS PLY: round trips, other tools' variants, the published LGM file, and every rejection by name."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import plyfile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import FileFormatError
from engine.files import SplatArrays, read_splats, rotate_splats, write_splats
from engine.geometry.frames import SPLAT_FROM_Z_UP
from engine.geometry.harmonics import SH_C0, sh_basis
from engine.geometry.rotations import matrix_from_quaternion

ORDER = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45)), "opacity",
         "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]  # fmt: skip


def near(a: SplatArrays, b: SplatArrays) -> None:
    assert np.array_equal(a.means, b.means)  # axes are only swapped
    assert np.array_equal(a.log_scales, b.log_scales)
    assert np.array_equal(a.opacity_logits, b.opacity_logits)
    assert np.array_equal(a.sh[:, 0], b.sh[:, 0])
    assert np.allclose(a.quaternions, b.quaternions, atol=3e-7)  # float32, turned there and back
    assert np.allclose(a.sh, b.sh, atol=3e-6)  # likewise; coefficients up to 5


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), count=st.integers(1, 40), degree=st.integers(0, 3))
def test_a_round_trip_gives_the_splats(tmp_path: Path, make_splats, seed, count, degree) -> None:
    splats = make_splats(seed, count=count, degree=degree)
    write_splats(tmp_path / "a.ply", splats)
    near(read_splats(tmp_path / "a.ply"), splats)


def test_plyfile_reads_the_layout_that_viewers_expect(tmp_path: Path, make_splats) -> None:
    splats = make_splats(0)
    path = tmp_path / "a.ply"
    write_splats(path, splats)
    ply = plyfile.PlyData.read(str(path))
    vertex = ply["vertex"]
    assert [p.name for p in vertex.properties] == ORDER
    assert not ply.text
    assert ply.byte_order == "<"
    assert "turntable axes y_down" in ply.comments
    assert any(comment.startswith("to +Z up: (x, y, z) -> (x, z, -y)") for comment in ply.comments)
    assert np.array_equal(vertex["x"], splats.means[:, 0])
    assert np.array_equal(vertex["y"], -splats.means[:, 2])
    assert np.array_equal(vertex["z"], splats.means[:, 1])
    assert not np.any([vertex[n] for n in ("nx", "ny", "nz")])
    assert np.array_equal(vertex["opacity"], splats.opacity_logits)
    assert np.array_equal(vertex["scale_1"], splats.log_scales[:, 1])
    assert np.array_equal(vertex["f_dc_2"], splats.sh[:, 0, 2])


def test_the_file_shows_the_same_splats_in_its_own_world(tmp_path: Path, make_splats, rng) -> None:
    """Covariances and colours, seen from turned directions, are those of the file's numbers taken at face value."""
    splats = make_splats(1)
    write_splats(tmp_path / "a.ply", splats)
    vertex = plyfile.PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    quaternions = np.stack([vertex[f"rot_{i}"] for i in range(4)], -1).astype(float)
    rest = np.stack([vertex[f"f_rest_{i}"] for i in range(45)], -1).reshape(-1, 3, 15)  # channel-major
    sh = np.concatenate([np.stack([vertex[f"f_dc_{i}"] for i in range(3)], -1)[:, None], rest.transpose(0, 2, 1)], 1)

    def covariance(wxyz: np.ndarray) -> np.ndarray:
        axes = matrix_from_quaternion(wxyz) * np.exp(splats.log_scales)[:, None]
        return axes @ axes.transpose(0, 2, 1)

    turned = SPLAT_FROM_Z_UP @ covariance(splats.quaternions.astype(float)) @ SPLAT_FROM_Z_UP.T
    assert np.allclose(covariance(quaternions), turned, rtol=1e-5, atol=1e-9)  # float32 quaternions
    directions = rng.normal(size=(30, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ours = np.einsum("dk,nkc->dnc", sh_basis(directions, 3), splats.sh)
    files = np.einsum("dk,nkc->dnc", sh_basis(directions @ SPLAT_FROM_Z_UP.T, 3), sh)
    assert np.allclose(ours, files, atol=1e-5)  # float32 coefficients


def test_the_published_lgm_file_is_read_as_lgm_itself_reads_it(oracles: Path) -> None:
    splats = read_splats(oracles / "lgm_small.ply", axes="z_up")  # untouched, to compare numbers
    reference = np.load(oracles / "lgm_small.npz")["ply_reloaded"]  # position, opacity, scale, rotation, colour
    assert np.array_equal(splats.means, reference[:, :3])
    ours = np.concatenate(
        [1 / (1 + np.exp(-splats.opacity_logits[:, None])), np.exp(splats.log_scales), splats.quaternions], 1
    )
    assert np.abs(ours - reference[:, 3:11]).max() < 3e-7  # float32 exp and normalisation
    assert np.abs(0.5 + SH_C0 * splats.sh[:, 0] - reference[:, 11:]).max() < 1e-6  # float32
    up = read_splats(oracles / "lgm_small.ply", axes="y_up")
    assert np.array_equal(up.means, reference[:, [0, 2, 1]] * np.float32([1, -1, 1]))
    down = read_splats(oracles / "lgm_small.ply")  # no comment: as INRIA's
    assert np.array_equal(down.means, reference[:, [0, 2, 1]] * np.float32([1, 1, -1]))


@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_other_orders_types_and_encodings_are_read(tmp_path: Path, make_splats, rng, text, order, kind) -> None:
    splats = make_splats(2, count=20)
    write_splats(tmp_path / "a.ply", splats)
    ply = plyfile.PlyData.read(str(tmp_path / "a.ply"))
    names = [str(n) for n in rng.permutation([n for n in ORDER if n not in ("nx", "ny", "nz")])]
    table = np.empty(20, [(name, kind) for name in names] + [("segment", "u1")])
    for name in names:
        table[name] = ply["vertex"][name]
    before = plyfile.PlyElement.describe(np.zeros(3, [("a", "u1"), ("b", "f8")]), "before")
    element = plyfile.PlyElement.describe(table, "vertex")
    plyfile.PlyData([before, element], text, order, ply.comments).write(str(tmp_path / "b.ply"))
    read = read_splats(tmp_path / "b.ply")
    assert read.means.dtype == np.float32
    if not text:
        near(read, splats)
    else:  # plyfile prints enough digits for float32, but turned rows pass through text
        assert np.allclose(read.means, splats.means, rtol=1e-5)
        assert np.allclose(read.sh, splats.sh, atol=1e-4)


def test_the_axes_comment_is_honoured_and_can_be_overruled(tmp_path: Path, make_splats) -> None:
    splats = make_splats(3)
    path = tmp_path / "a.ply"
    write_splats(path, splats)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"axes y_down", b"axes z_up"))
    assert np.array_equal(read_splats(path).means, splats.means @ SPLAT_FROM_Z_UP.T.astype("f4"))
    near(read_splats(path, axes="y_down"), splats)
    path.write_bytes(data.replace(b"axes y_down", b"axes x_up"))
    with pytest.raises(FileFormatError, match="its axes comment must say one of y_down, y_up, z_up, found x_up"):
        read_splats(path)


def test_same_splats_same_bytes(tmp_path: Path, make_splats) -> None:
    for name in "ab":
        write_splats(tmp_path / name, make_splats(4))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_turning_there_and_back(make_splats, rng) -> None:
    q = rng.normal(size=4)
    rotation = matrix_from_quaternion(q)
    splats = make_splats(5)
    back = rotate_splats(rotate_splats(splats, rotation), rotation.T)
    assert np.allclose(back.means, splats.means, atol=1e-5)  # float32
    assert np.allclose(np.abs(np.sum(back.quaternions * splats.quaternions, -1)), 1, atol=1e-6)  # q and -q are one
    assert np.allclose(back.sh, splats.sh, atol=1e-5)


def rewritten(path: Path, splats: SplatArrays, change) -> None:
    """Write splats, then let `change` edit plyfile's table (a dict of columns) and write that."""
    write_splats(path, splats)
    vertex = plyfile.PlyData.read(str(path))["vertex"]
    columns = {p.name: np.array(vertex[p.name]) for p in vertex.properties}
    change(columns)
    table = np.empty(len(splats), [(name, values.dtype.str) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    plyfile.PlyData([plyfile.PlyElement.describe(table, "vertex")]).write(str(path))


def activate(c: dict[str, np.ndarray]) -> None:
    c["opacity"] = 1 / (1 + np.exp(-c["opacity"]))
    for i in range(3):
        c[f"scale_{i}"] = np.exp(c[f"scale_{i}"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["y"].__setitem__(7, np.nan), "row 7 has y = nan, expected a finite number (1 such rows); drop these splats"),
        (lambda c: c["f_rest_3"].__setitem__(slice(2, 5), np.inf), "row 2 has f_rest_3 = inf, expected a finite number (3 such rows); drop these splats"),
        (lambda c: [c[f"rot_{i}"].__setitem__(4, 0) for i in range(4)], "row 4 has a zero quaternion, which is no rotation (1 such rows)"),
        (activate, "holds activated values (every opacity in [0, 1], every scale above 0), expected raw ones: write logit(opacity) and log(scale)"),
        (lambda c: c.pop("f_rest_44"), "must have f_rest_0 .. f_rest_(n-1) with n one of 0, 9, 24, 45 (degree 0 to 3), found 44"),
        (lambda c: c.pop("opacity"), "is not a 3DGS PLY: property opacity is missing (1 in all)"),
        (lambda c: [c.pop(n) for n in list(c) if n not in "xyz"], "is not a 3DGS PLY: property f_dc_0 is missing (10 in all)"),
    ],
)  # fmt: skip
def test_wrong_values_are_rejected_by_row(tmp_path: Path, make_splats, change, message) -> None:
    path = tmp_path / "a.ply"
    rewritten(path, make_splats(6), change)
    with pytest.raises(FileFormatError) as caught:
        read_splats(path)
    assert str(caught.value) == f"{path}: {message}"


def test_raw_files_that_look_a_little_activated_are_read(tmp_path: Path, make_splats) -> None:
    splats = make_splats(7, count=30)
    half_clear = replace(splats, opacity_logits=np.full(30, 0.5, np.float32))  # alpha 0.62 everywhere
    metres = replace(splats, log_scales=np.abs(splats.log_scales))  # a landscape of large splats
    few = replace(make_splats(7, count=3), opacity_logits=np.full(3, 0.5, "f4"), log_scales=np.full((3, 3), 0.1, "f4"))
    for raw in (half_clear, metres, few):
        write_splats(tmp_path / "a.ply", raw)
        near(read_splats(tmp_path / "a.ply"), raw)


def test_the_writer_refuses_what_a_reader_would(tmp_path: Path, make_splats) -> None:
    path = tmp_path / "a.ply"
    splats = make_splats(8)
    broken = splats.means.copy()
    broken[3, 1] = np.inf
    activated = replace(
        splats, opacity_logits=1 / (1 + np.exp(-splats.opacity_logits)), log_scales=np.exp(splats.log_scales)
    )
    for wrong, message in (
        (replace(splats, means=broken), "row 3 has y = inf"),
        (replace(splats, means=np.full((50, 3), 1e300)), "row 0 has x = 1e\\+300, expected a finite number"),
        (replace(splats, quaternions=np.zeros((50, 4), np.float32)), "row 0 has a zero quaternion"),
        (activated, "holds activated values"),
        (make_splats(0, count=0), "holds no splats"),
    ):
        with pytest.raises(FileFormatError, match=message):
            write_splats(path, wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [True, False])
def test_a_file_cut_off_anywhere_is_rejected(tmp_path: Path, make_splats, text) -> None:
    path = tmp_path / "a.ply"
    write_splats(path, make_splats(9, count=20))
    ply = plyfile.PlyData.read(str(path), mmap=False)
    plyfile.PlyData([ply["vertex"]], text).write(str(path))
    whole = path.read_bytes()
    start = whole.index(b"end_header\n") + 11
    for size in (start, start + 1, (start + len(whole)) // 2, len(whole) - (60 if text else 1)):
        path.write_bytes(whole[:size])
        with pytest.raises(
            FileFormatError, match=r"is truncated: its header promises 20 vertex rows, \d+ whole|holds a row"
        ):
            read_splats(path)
    for size in (4, 100, start - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match="is truncated: its PLY header has no end_header line"):
            read_splats(path)


def header(*lines: str) -> bytes:
    return "\n".join(["ply", "format ascii 1.0", *lines, "end_header", ""]).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a PLY: it must begin with the line 'ply', found b''"),
        (b"glTF....", "is not a PLY: it must begin with the line 'ply', found b'glTF....'"),
        (header("element vertex 3", "property float x", "element face 2", "property list uchar int vertex_indices"), "is a mesh (2 faces), expected 3D Gaussian splats; read it as a mesh"),
        (header("element chunk 1", "property float min_x", "element vertex 3", "property uint packed_position"), "is a SuperSplat-compressed PLY; export it again as an uncompressed PLY"),
        (header("element vertex 0", "property float x"), "holds no splats (no rows of element vertex)"),
        (header("element vertices 2"), "holds no splats (no rows of element vertex)"),
        (header("property float x"), "has a PLY header line that means nothing: 'property float x'"),
        (header("element vertex many"), "has a PLY header line that means nothing: 'element vertex many'"),
        (b"ply\nelement vertex 1\nend_header\n", "has no 'format' line in its PLY header"),
    ],
)  # fmt: skip
def test_files_of_another_kind_are_named(tmp_path: Path, data, message) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(data)
    with pytest.raises(FileFormatError) as caught:
        read_splats(path)
    assert str(caught.value) == f"{path}: {message}"


def test_2d_gaussians_get_a_thin_third_axis(tmp_path: Path, make_splats, caplog) -> None:
    splats = make_splats(10)
    rewritten(tmp_path / "a.ply", splats, lambda c: c.pop("scale_2"))
    read = read_splats(tmp_path / "a.ply")
    assert np.allclose(read.log_scales[:, 2], splats.log_scales[:, :2].min(1) + np.log(0.01), atol=1e-6)  # float32
    assert "holds 2D Gaussians" in caplog.text
