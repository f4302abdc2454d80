"""Parts into one closed Blender mesh: exact unions and cuts, shading, a unique unwrap, and the GLB."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import bmesh  # type: ignore[import-not-found]
import bpy
import numpy as np
from jaxtyping import Float, Int, UInt8
from mathutils import Matrix

from render_farm.worker.example.charts import lay_flat
from render_farm.worker.example.solids import Part, Solid

log = logging.getLogger(__name__)

SMOOTH_BELOW_DEG = 32.0
"""Edges flatter than this are shaded smooth: the tower is round, a stone's facets stay crisp."""
ISLAND_MARGIN = 0.001
"""Space around each chart, of the image's side."""
SHORTEST_EDGE_M = 1e-3
"""Shorter ones are left over from the booleans."""


@dataclass(frozen=True)
class Unwrapped:
    """The triangles of the finished mesh, for the painter."""

    positions: Float[np.ndarray, "t 3 3"]
    """World, metres."""
    normals: Float[np.ndarray, "t 3 3"]
    """World, unit length, as shaded."""
    uv: Float[np.ndarray, "t 3 2"]
    """In [0, 1], v upwards; no two triangles overlap."""
    solid: Int[np.ndarray, " t"]
    """Index of the solid that the triangle's surface came from."""


def reset() -> None:
    """Empty the Blender scene."""
    bpy.ops.wm.read_factory_settings(use_empty=True)


def join_parts(parts: Sequence[Part]) -> tuple[Any, list[Solid]]:
    """Return the union of all parts as a Blender object, and the solids that its faces' ``solid`` refers to."""
    solids: list[Solid] = []

    def add(solid: Solid) -> Any:
        solids.append(solid)
        return _object_from_solid(solid, len(solids) - 1)

    whole = None
    for part in parts:
        built = add(part.add[0])
        for solid in part.add[1:]:
            built = _boolean(built, add(solid), "UNION")
        for solid in part.cut:
            built = _boolean(built, add(solid), "DIFFERENCE")
        for solid in part.fill:
            built = _boolean(built, add(solid), "UNION")
        whole = built if whole is None else _boolean(whole, built, "UNION")
        log.info("%s: %d faces so far", part.name, len(whole.data.polygons))
    if whole is None:
        raise ValueError("join_parts needs at least one part, got none")
    return whole, solids


def _object_from_solid(solid: Solid, index: int) -> Any:
    """Return a Blender object in world coordinates whose faces carry the solid's index."""
    mesh = bpy.data.meshes.new(solid.paint)
    mesh.from_pydata(solid.world_vertices.tolist(), [], [list(f) for f in solid.faces])
    tag = mesh.attributes.new("solid", "INT", "FACE")
    tag.data.foreach_set("value", np.full(len(solid.faces), index, np.int32))
    thing = bpy.data.objects.new(solid.paint, mesh)
    bpy.context.scene.collection.objects.link(thing)
    _triangulate(thing)  # a bent polygon would come out of the boolean as one that cannot be cut into triangles
    return thing


def _boolean(a: Any, b: Any, operation: Literal["UNION", "DIFFERENCE"]) -> Any:
    """Return ``a`` changed by ``b``; ``b`` is used up."""
    modifier = a.modifiers.new("join", "BOOLEAN")
    modifier.operation, modifier.solver, modifier.object = operation, "MANIFOLD", b
    before = a.data
    after = bpy.data.meshes.new_from_object(a.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    a.modifiers.clear()
    a.data = after
    for mesh in (before, b.data):
        bpy.data.meshes.remove(mesh)
    return a


def unwrap(whole: Any, solids: Sequence[Solid], offset: tuple[float, float, float]) -> Unwrapped:
    """Move the object by ``offset``, triangulate and shade it, give it a UV map, and return its triangles."""
    bpy.context.view_layer.objects.active = whole
    whole.select_set(True)
    _clean(whole.data)
    whole.data.transform(Matrix.Translation(offset))
    _project(whole.data, solids)
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.select_all(action="SELECT")
    bpy.ops.uv.select_all(action="SELECT")
    bpy.ops.uv.pack_islands(
        shape_method="AABB", rotate_method="CARDINAL", margin_method="FRACTION", margin=ISLAND_MARGIN
    )
    bpy.ops.object.mode_set(mode="OBJECT")
    whole.data.shade_smooth()
    whole.data.set_sharp_from_angle(angle=float(np.radians(SMOOTH_BELOW_DEG)))
    return _triangles(whole.data, np.array(offset))


def _triangulate(whole: Any) -> None:
    """Replace the object's polygons by triangles."""
    whole.modifiers.new("triangles", "TRIANGULATE")
    before = whole.data
    whole.data = bpy.data.meshes.new_from_object(whole.evaluated_get(bpy.context.evaluated_depsgraph_get()))
    whole.modifiers.clear()
    bpy.data.meshes.remove(before)


def _clean(mesh: Any) -> None:
    """Drop what is no outside: slivers, and the small voids that the joined parts enclose.

    Edges too short to survive single precision must go, since two ends at one place would open the surface.
    """
    surface = bmesh.new()
    surface.from_mesh(mesh)
    _collapse_short_edges(surface)  # among polygons first: cutting thin ones into triangles doubles edges
    bmesh.ops.triangulate(surface, faces=surface.faces[:])
    _collapse_short_edges(surface)
    shells = sorted(_shells(surface), key=len)
    for shell in shells[:-1]:
        if _signed_volume(shell) > 0:
            where = tuple(round(x, 2) for x in shell[0].calc_center_median())
            raise ValueError(f"the example must be one piece, but {len(shell)} faces float at {where}: sink that solid")
        bmesh.ops.delete(surface, geom=shell, context="FACES")
    open_edges = sum(not e.is_manifold for e in surface.edges)
    surface.to_mesh(mesh)
    surface.free()
    if open_edges:
        raise ValueError(f"the example's surface must be closed, but {open_edges} edges are not: move the parts there")


def _collapse_short_edges(surface: Any) -> None:
    """Collapse one short edge at a time, and only where the surface stays a manifold.

    The link condition of Dey et al., "Topology preserving edge contraction" (1999): the ends of the edge share just
    the neighbours that its own triangles have.
    """
    collapsed = True
    while collapsed:
        collapsed = False
        for edge in [e for e in surface.edges if e.calc_length() < SHORTEST_EDGE_M]:
            if edge.is_valid and edge.calc_length() < SHORTEST_EDGE_M and _link_condition(edge):
                kept, dropped = edge.verts
                bmesh.ops.weld_verts(surface, targetmap={dropped: kept})
                collapsed = True


def _link_condition(edge: Any) -> bool:
    """Return whether the edge may be collapsed without pinching the surface."""
    near_a, near_b = ({e.other_vert(end) for e in end.link_edges} for end in edge.verts)
    faces_a, faces_b = (set(end.link_faces) for end in edge.verts)
    triangles = sum(len(face.verts) == 3 for face in edge.link_faces)
    return len(near_a & near_b) == triangles and faces_a & faces_b == set(edge.link_faces)


def _shells(surface: Any) -> list[list[Any]]:
    """Return the connected groups of faces."""
    unseen, shells = set(surface.faces), []
    for seed in surface.faces:
        if seed not in unseen:
            continue
        unseen.discard(seed)
        shell = [seed]
        for face in shell:  # grows while it is walked
            near = [f for e in face.edges for f in e.link_faces if f in unseen]
            unseen.difference_update(near)
            shell += dict.fromkeys(near)
        shells.append(shell)
    return shells


def _signed_volume(shell: list[Any]) -> float:
    """Return the volume that triangles enclose, cubic metres: below zero where they face inwards, as a void's do."""
    corners = np.array([[v.co for v in face.verts] for face in shell], dtype=np.float64)
    return float(np.linalg.det(corners).sum() / 6)


def _project(mesh: Any, solids: Sequence[Solid]) -> None:
    """Give the mesh its UV map, not packed yet."""
    flat = lay_flat(_corner_positions(mesh), _corner_vertices(mesh), _solid_of_faces(mesh), solids)
    flat = flat / np.abs(flat).max()  # single precision: stay near 1
    mesh.uv_layers.new(name="UVMap").data.foreach_set("uv", flat.astype(np.float32).ravel())


def _corner_positions(mesh: Any) -> Float[np.ndarray, "t 3 3"]:
    """Return each triangle's corners, metres; the mesh must hold triangles only."""
    positions = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", positions)
    return positions.reshape(-1, 3)[_corner_vertices(mesh)].astype(np.float64)


def _corner_vertices(mesh: Any) -> Int[np.ndarray, "t 3"]:
    """Return each triangle's vertices."""
    index = np.empty(len(mesh.loops), np.int32)
    mesh.loops.foreach_get("vertex_index", index)
    return index.reshape(-1, 3).astype(np.int64)


def _solid_of_faces(mesh: Any) -> Int[np.ndarray, " t"]:
    """Return the index of the solid that each face came from."""
    solid = np.empty(len(mesh.polygons), np.int32)
    mesh.attributes["solid"].data.foreach_get("value", solid)
    return solid.astype(np.int64)


def _triangles(mesh: Any, offset: Float[np.ndarray, "3"]) -> Unwrapped:
    """Read the finished triangles out of Blender, less the offset."""
    normals, uv = np.empty(len(mesh.loops) * 3, np.float32), np.empty(len(mesh.loops) * 2, np.float32)
    mesh.corner_normals.foreach_get("vector", normals)
    mesh.uv_layers.active.data.foreach_get("uv", uv)
    return Unwrapped(
        positions=_corner_positions(mesh) - offset,
        normals=normals.reshape(-1, 3, 3).astype(np.float64),
        uv=uv.reshape(-1, 3, 2).astype(np.float64),
        solid=_solid_of_faces(mesh),
    )


def dress(whole: Any, name: str, texture: UInt8[np.ndarray, "h w 3"], quality: int) -> None:
    """Give the object one rough material with the texture (first row at the top, sRGB) as its base colour."""
    height, width, _ = texture.shape
    image = bpy.data.images.new(name, width, height)
    pixels = np.ones((height, width, 4), np.float32)
    pixels[..., :3] = texture[::-1] / 255.0
    image.pixels.foreach_set(pixels.ravel())
    _pack_as_jpeg(image, quality)
    material = bpy.data.materials.new(name)
    if material.node_tree is None:  # from Blender 5 on, every material has nodes
        material.use_nodes = True
    nodes = material.node_tree.nodes
    shader = next(n for n in nodes if n.type == "BSDF_PRINCIPLED")
    shader.inputs["Roughness"].default_value = 0.9
    shader.inputs["Specular IOR Level"].default_value = 0.2
    picture = nodes.new("ShaderNodeTexImage")
    picture.image = image
    material.node_tree.links.new(picture.outputs["Color"], shader.inputs["Base Color"])
    whole.name = whole.data.name = name
    whole.data.materials.clear()
    whole.data.materials.append(material)
    whole.data.attributes.remove(whole.data.attributes["solid"])


def _pack_as_jpeg(image: Any, quality: int) -> None:
    """Replace the image's float pixels by a packed JPEG, which the exporter then copies as it is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{image.name}.jpg"
        image.filepath_raw, image.file_format = str(path), "JPEG"
        image.save(quality=quality)
        image.source = "FILE"
        image.filepath = str(path)
        image.reload()
        image.pack()


def export(path: Path) -> None:
    """Write the scene as one GLB."""
    bpy.ops.export_scene.gltf(
        filepath=str(path), export_format="GLB", export_image_format="AUTO", export_animations=False
    )
