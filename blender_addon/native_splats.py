"""Splats as Blender 5.3 and newer draw them: a point cloud of a type of its own.

Written from Blender's source, not run: no 5.3 was at hand when this was made. Attribute names and contents follow
source/blender/io/ply/importer/ply_import_gsplat.cc. Everything written is read back; what does not hold raises one of
NATIVE_TROUBLE with nothing left behind, and the caller draws ellipsoids instead.
"""

import bpy
import numpy as np

from .ply import Splats

NATIVE_TROUBLE = (AttributeError, KeyError, RuntimeError, TypeError, ValueError)
"""What Blender raises where its interface is not what this file expects."""


def identifier() -> str | None:
    """Return the point cloud type that means splats, or None where Blender does not have it (before 5.3)."""
    kind = bpy.types.PointCloud.bl_rna.properties.get("type")
    items = getattr(kind, "enum_items", None) or ()
    return next((item.identifier for item in items if "SPLAT" in item.identifier.upper()), None)


def columns(splats: Splats) -> dict[str, tuple[str, np.ndarray]]:
    """Return attribute name -> (type, values), as Blender's PLY importer makes them.

    The scale is linear, radiance:base is the raw degree 0 coefficient with the activated opacity, and
    radiance:sh_k are the other coefficients, red, green and blue together.
    """
    base = np.concatenate([splats.sh[:, 0], splats.opacities[:, None]], 1)
    found = {
        "scale": ("FLOAT_VECTOR", splats.scales),
        "rotation": ("QUATERNION", splats.quaternions),
        "radiance:base": ("FLOAT4", base),
    }
    for index in range(1, splats.sh.shape[1]):
        found[f"radiance:sh_{index - 1}"] = ("FLOAT_VECTOR", splats.sh[:, index])
    return found


def add_native(splats: Splats, name: str, collection: bpy.types.Collection) -> bpy.types.Object:
    """Add a native splat object to a collection. Raises one of NATIVE_TROUBLE and leaves nothing if that fails."""
    cloud = bpy.data.pointclouds.new(name)
    try:
        cloud.resize(len(splats))
        cloud.type = identifier()
        cloud.points.foreach_set("co", np.ascontiguousarray(splats.means, np.float32).ravel())
        for label, (kind, values) in columns(splats).items():
            _write(cloud, label, kind, values)
        cloud.update_tag()
    except NATIVE_TROUBLE:
        bpy.data.pointclouds.remove(cloud)
        raise
    target = bpy.data.objects.new(name, cloud)
    collection.objects.link(target)
    target["turntable_splats"] = len(splats)
    target["turntable_sh_degree"] = splats.degree
    return target


def _write(cloud: bpy.types.ID, label: str, kind: str, values: np.ndarray) -> None:
    attribute = cloud.attributes.get(label) or cloud.attributes.new(label, kind, "POINT")
    if attribute.data_type != kind:
        raise TypeError(f"{label}: expected {kind}, found {attribute.data_type}")
    field = "vector" if kind == "FLOAT_VECTOR" else "value"
    flat = np.ascontiguousarray(values, np.float32).ravel()
    attribute.data.foreach_set(field, flat)
    written = np.empty_like(flat)
    attribute.data.foreach_get(field, written)
    if not np.array_equal(written, flat):
        raise ValueError(f"{label}: read back otherwise than written")
