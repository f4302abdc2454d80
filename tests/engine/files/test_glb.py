"""Meshes as .glb: exact round trips, what glTF asks for, other tools' files, and every rejection by name."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from engine.errors import FileFormatError
from engine.files import MeshArrays, linear_from_srgb, read_mesh, srgb_from_linear, vertex_normals, write_mesh
from engine.files.glb_reader import unpack_glb


def sphere(subdivisions: int = 2) -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(subdivisions)
    return np.asarray(mesh.vertices, np.float32) * np.float32([1, 0.8, 0.6]), np.asarray(mesh.faces)


def textured(rng: np.random.Generator, seams: float = 0.3) -> MeshArrays:
    """A sphere whose uv is shared by the corners of most vertices and torn at some."""
    vertices, faces = sphere()
    uv = rng.random((len(vertices), 2)).astype(np.float32)[faces]
    torn = rng.random(len(faces)) < seams
    uv[torn] = rng.random((int(torn.sum()), 3, 2))
    return MeshArrays(vertices, faces, uv, rng.integers(0, 256, (16, 32, 3), dtype=np.uint8))


def document_of(path: Path) -> dict:
    return unpack_glb(path.read_bytes(), path.name)[0]


@pytest.mark.parametrize("seed", range(5))
def test_a_textured_round_trip_is_exact(tmp_path: Path, seed: int) -> None:
    mesh = textured(np.random.default_rng(seed))
    write_mesh(tmp_path / "a.glb", mesh)
    read = read_mesh(tmp_path / "a.glb")
    for name in ("vertices", "faces", "uv", "texture"):
        assert np.array_equal(getattr(read, name), getattr(mesh, name)), name
    assert read.vertex_colours is None


def test_every_vertex_colour_survives(tmp_path: Path) -> None:
    vertices, faces = sphere(3)
    colours = np.arange(len(vertices) * 3).astype(np.uint8).reshape(-1, 3)  # all 256 values
    write_mesh(tmp_path / "a.glb", MeshArrays(vertices, faces, vertex_colours=colours))
    read = read_mesh(tmp_path / "a.glb")
    assert np.array_equal(read.vertex_colours, colours)
    assert np.array_equal(read.vertices, vertices)
    assert np.array_equal(read.faces, faces)


def test_a_bare_mesh_stays_bare(tmp_path: Path) -> None:
    vertices, faces = sphere()
    write_mesh(tmp_path / "a.glb", MeshArrays(vertices, faces))
    read = read_mesh(tmp_path / "a.glb")
    assert (read.uv, read.texture, read.vertex_colours) == (None, None, None)


def test_merging_equal_positions_closes_the_mesh(tmp_path: Path, rng) -> None:
    mesh = textured(rng)
    write_mesh(tmp_path / "a.glb", mesh)
    loaded = trimesh.load(tmp_path / "a.glb", force="mesh", process=False)
    assert len(loaded.vertices) > len(mesh.vertices)  # split at seams
    assert not loaded.is_watertight
    loaded.merge_vertices(merge_tex=True, merge_norm=True)
    assert loaded.is_watertight
    assert len(loaded.vertices) == len(mesh.vertices)


def test_the_world_is_y_up_and_normals_point_outwards_across_seams(tmp_path: Path, rng) -> None:
    mesh = textured(rng)
    write_mesh(tmp_path / "a.glb", mesh)
    loaded = trimesh.load(tmp_path / "a.glb", force="mesh", process=False)
    assert np.allclose(np.ptp(loaded.vertices, axis=0), np.ptp(mesh.vertices, axis=0)[[0, 2, 1]])
    assert loaded.volume > 0  # counter-clockwise from outside
    (loaded,) = trimesh.load(
        tmp_path / "a.glb", process=False
    ).geometry.values()  # force="mesh" drops the file's normals
    normals = np.asarray(loaded.vertex_normals)
    assert np.allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)  # float32
    assert (np.sum(normals * loaded.vertices, 1) > 0).all()
    _, place = np.unique(np.asarray(loaded.vertices), axis=0, return_inverse=True)
    place = place.reshape(-1)
    first = np.array([np.flatnonzero(place == p)[0] for p in place])
    assert np.array_equal(normals, normals[first])  # one normal for each place


def test_normals_of_a_cube_are_its_diagonals() -> None:
    cube = trimesh.creation.box()
    normals = vertex_normals(np.asarray(cube.vertices), np.asarray(cube.faces))
    # weighted by angle, the two triangles of a side count as one right angle, whichever way it was cut
    assert np.allclose(normals, cube.vertices / np.linalg.norm(cube.vertices, axis=1, keepdims=True), atol=1e-12)


def test_a_vertex_without_area_still_has_a_unit_normal() -> None:
    normals = vertex_normals(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    assert np.array_equal(normals, [[0, 0, 1]] * 3)


def test_the_material_is_what_viewers_need(tmp_path: Path, rng) -> None:
    path = tmp_path / "a.glb"
    write_mesh(path, textured(rng))
    document = document_of(path)
    material = document["materials"][0]
    look = material["pbrMetallicRoughness"]
    assert (look["metallicFactor"], look["roughnessFactor"]) == (0.0, 0.9)
    assert (material["alphaMode"], material["doubleSided"]) == ("OPAQUE", False)
    assert document["images"][0]["mimeType"] == "image/png"
    attributes = document["meshes"][0]["primitives"][0]["attributes"]
    assert set(attributes) == {"POSITION", "NORMAL", "TEXCOORD_0"}
    position = document["accessors"][attributes["POSITION"]]
    assert len(position["min"]) == len(position["max"]) == 3
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    write_mesh(path, textured(rng), double_sided=True, roughness=0.5)
    assert document_of(path)["materials"][0]["doubleSided"] is True


def test_vertex_colours_are_linear_light(tmp_path: Path) -> None:
    colours = np.array([[188, 188, 188], [255, 0, 0], [1, 2, 3]], np.uint8)
    mesh = MeshArrays(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]]), vertex_colours=colours)
    write_mesh(tmp_path / "a.glb", mesh)
    document, binary = unpack_glb((tmp_path / "a.glb").read_bytes(), "a.glb")
    accessor = document["accessors"][document["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]]
    assert (accessor["componentType"], accessor["normalized"], accessor["type"]) == (5123, True, "VEC4")
    view = document["bufferViews"][accessor["bufferView"]]
    stored = np.frombuffer(binary, "<u2", 12, view["byteOffset"]).reshape(3, 4) / 65535
    assert np.allclose(stored[0], [0.5029, 0.5029, 0.5029, 1], atol=1e-4)  # sRGB 188 is linear 0.5029
    assert np.allclose(stored[1], [1, 0, 0, 1])


def test_a_texture_wins_over_vertex_colours(tmp_path: Path, rng) -> None:
    mesh = textured(rng)
    both = MeshArrays(mesh.vertices, mesh.faces, mesh.uv, mesh.texture, np.zeros((len(mesh.vertices), 3), np.uint8))
    write_mesh(tmp_path / "a.glb", both)
    assert np.array_equal(read_mesh(tmp_path / "a.glb").texture, mesh.texture)


def test_same_mesh_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_mesh(tmp_path / folder / "mesh.glb", textured(np.random.default_rng(0)))
    assert (tmp_path / "a" / "mesh.glb").read_bytes() == (tmp_path / "b" / "mesh.glb").read_bytes()


def test_srgb_and_linear_undo_each_other() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(srgb_from_linear(linear_from_srgb(every)), every)
    sixteen_bits = np.rint(65535 * linear_from_srgb(every)) / 65535
    assert np.array_equal(srgb_from_linear(sixteen_bits), every)


def test_other_tools_scenes_are_placed_joined_and_coloured(tmp_path: Path) -> None:
    red = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 0, 0, 255])
    box = trimesh.creation.box((1, 2, 3))
    box.visual = trimesh.visual.TextureVisuals(material=red)
    ball = trimesh.creation.icosphere(1)
    scene = trimesh.Scene()
    move = trimesh.transformations.translation_matrix([5, 0, 0])
    mirror = np.diag([-1.0, 1, 1, 1])
    scene.add_geometry(box, transform=move)
    scene.add_geometry(ball, transform=mirror)
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    assert len(mesh.faces) == 12 + len(ball.faces)
    at_box = mesh.vertices[:, 0] > 3
    assert np.allclose(mesh.vertices[at_box].min(0), [4.5, -1.5, -1])  # (x, z, -y) back to +Z up
    assert np.allclose(mesh.vertices[at_box].max(0), [5.5, 1.5, 1])
    assert (mesh.vertex_colours[at_box] == [255, 0, 0]).all()
    assert (mesh.vertex_colours[~at_box] == [255, 255, 255]).all()
    joined = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert joined.is_watertight
    assert np.isclose(joined.volume, 6 + ball.volume)  # the mirrored ball is not inside out


def test_several_textures_become_vertex_colours(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    for x, colour in ((0, (10, 20, 30)), (5, (200, 100, 0))):
        box = trimesh.creation.box()
        image = Image.new("RGB", (4, 4), colour)
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
        box.visual = trimesh.visual.TextureVisuals(uv=np.full((8, 2), 0.5), material=material)
        scene.add_geometry(box, transform=trimesh.transformations.translation_matrix([x, 0, 0]))
    (tmp_path / "a.glb").write_bytes(scene.export(file_type="glb"))
    mesh = read_mesh(tmp_path / "a.glb")
    assert mesh.texture is None
    left = mesh.vertices[:, 0] < 2
    assert (mesh.vertex_colours[left] == [10, 20, 30]).all()
    assert (mesh.vertex_colours[~left] == [200, 100, 0]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": np.zeros((0, 3)), "faces": np.zeros((0, 3), int)}, "the mesh is empty (0 vertices, 0 faces)"),
        ({"faces": np.zeros((0, 3), int)}, "the mesh is empty (3 vertices, 0 faces)"),
        ({"vertices": np.array([[0.0, 0, 0], [np.nan, 1, 0], [0, 0, 1]])}, "vertex 1 is [nan, 1.0, 0.0], expected finite numbers"),
        ({"faces": np.array([[0, 1, 3]])}, "faces must index vertices 0 to 2, found 3"),
        ({"faces": np.array([[0, 1, -1]])}, "faces must index vertices 0 to 2, found -1"),
        ({"texture": np.zeros((2, 2, 3), np.uint8)}, "a texture needs pixels and uv; unwrap the mesh first"),
        ({"uv": np.full((1, 3, 2), np.inf)}, "uv must be finite and one for each corner of 1 faces"),
    ],
)  # fmt: skip
def test_the_writer_refuses_by_name_and_leaves_nothing(tmp_path: Path, change, message) -> None:
    facts = {"vertices": np.eye(3), "faces": np.array([[0, 1, 2]]), **change}
    with pytest.raises(FileFormatError) as caught:
        write_mesh(tmp_path / "a.glb", MeshArrays(**facts))
    assert str(caught.value) == f"{tmp_path}/a.glb: {message}"
    assert list(tmp_path.iterdir()) == []


def test_a_file_cut_off_anywhere_is_rejected(tmp_path: Path, rng) -> None:
    path = tmp_path / "a.glb"
    write_mesh(path, textured(rng))
    whole = path.read_bytes()
    for size in (20, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError) as caught:
            read_mesh(path)
        assert str(caught.value) == f"{path}: is truncated: {size} of {len(whole)} bytes are there; write it again"
    path.write_bytes(whole[:10])
    with pytest.raises(FileFormatError, match="is not a GLB: it must begin with 'glTF'"):
        read_mesh(path)


def edited(path: Path, edit) -> None:
    """Edit a GLB's json in place, keeping the container consistent."""
    document, binary = unpack_glb(path.read_bytes(), path.name)
    edit(document)
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(binary), 0x004E4942) + binary
    path.write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(body)) + body)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d["bufferViews"][0].update(byteLength=10**9), "its parts do not fit together|not finite|holds no"),
        (lambda d: d["accessors"].pop(), "its parts do not fit together"),
        (lambda d: d["meshes"][0]["primitives"][0].update(mode=1), "holds no triangles|do not fit"),
        (lambda d: d.update(extensionsRequired=["KHR_draco_mesh_compression"]), "is compressed with KHR_draco_mesh_compression; export it again without compression"),
        (lambda d: d.pop("meshes"), "holds no triangles|do not fit"),
        (lambda d: d.pop("asset"), "its json chunk is not a glTF document"),
    ],
)  # fmt: skip
def test_a_glb_that_does_not_hang_together_is_rejected(tmp_path: Path, rng, edit, message) -> None:
    path = tmp_path / "a.glb"
    write_mesh(path, textured(rng))
    edited(path, edit)
    with pytest.raises(FileFormatError, match=message):
        read_mesh(path)


def test_an_index_out_of_range_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    write_mesh(path, MeshArrays(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]])))
    data = bytearray(path.read_bytes())
    at = data.rindex(struct.pack("<III", 0, 1, 2))
    data[at : at + 4] = struct.pack("<I", 77)
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=r"its parts do not fit together: .*77"):
        read_mesh(path)


def test_real_objects_are_read_whole(repository: Path) -> None:
    folder = repository.parent / "shared" / "data" / "objects"
    if not folder.is_dir():
        pytest.skip(f"no objects: {folder} is not here")
    for path in sorted(folder.glob("*.glb"))[::40]:
        mesh = read_mesh(path)
        truth = trimesh.load(io.BytesIO(path.read_bytes()), file_type="glb", force="mesh", process=False)
        assert len(mesh.faces) == len(truth.faces)
        used = mesh.vertices[np.unique(mesh.faces)]
        # normalised: longest side 1, centred; float32 and the makers' rounding
        assert np.allclose(np.ptp(used, axis=0).max(), 1, atol=1e-3)
        assert np.allclose(used.min(0) + used.max(0), 0, atol=2e-3)
