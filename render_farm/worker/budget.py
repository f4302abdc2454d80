"""How many triangles an object will have, before anything is evaluated: a broken array of a million copies is refused
in a moment instead of filling the memory. Evaluated geometry is counted again afterwards."""

import bpy

Counts = dict[bpy.types.Collection, int]


def estimate_triangles(objects: list[bpy.types.Object]) -> int:
    """Return the triangles that a render will have of meshes with subdivisions, arrays and collection instances."""
    counts: Counts = {}
    return sum(_of_object(item, counts) for item in objects)


def _of_object(item: bpy.types.Object, counts: Counts) -> int:
    total = 0
    if item.type == "MESH":
        corners = len(item.data.loops)
        total = corners - 2 * len(item.data.polygons)
        for modifier in item.modifiers:
            if modifier.type in {"SUBSURF", "MULTIRES"}:
                levels = modifier.render_levels
                if modifier.show_render and levels:  # every corner becomes a quad, then every quad four
                    corners, total = corners * 4**levels, 2 * corners * 4 ** (levels - 1)
            elif modifier.type == "ARRAY" and modifier.show_render and modifier.fit_type == "FIXED_COUNT":
                corners, total = corners * modifier.count, total * modifier.count
    if item.instance_type == "COLLECTION" and item.instance_collection is not None:
        total += _of_collection(item.instance_collection, counts)
    return total


def _of_collection(collection: bpy.types.Collection, counts: Counts) -> int:
    if collection not in counts:
        counts[collection] = 0  # Blender allows no cycles; a broken file may have one
        counts[collection] = sum(_of_object(item, counts) for item in collection.all_objects)
    return counts[collection]
