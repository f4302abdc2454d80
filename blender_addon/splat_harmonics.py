"""Shader nodes for view-dependent colour: spherical harmonics of degree 1 to 3, as 3DGS evaluates them.

    camera's place in the splat's own space --scale--> direction --basis group--> b_1 ... b_15
                                                                                       |
    colour + sum(b_k * sh_k), clamped and made linear by the material   <-- attributes of the instance, four sh each

The direction leads from the camera to the splat's centre, one for the whole splat, as the fit saw it; it is taken in the
shader, so every camera and every frame has its own. The coefficients are turned into each splat's own axes on import
(`splat_frames.in_own_axes`): no rotation is left to the shader, and moving or turning the object keeps the look.
Mirrors show the colours that the camera sees, and an orthographic camera counts as standing at its origin.

EEVEE reads at most 8 attributes per instance and takes 0 for the others, in the order in which the nodes need them. So
four coefficients of one channel share an attribute, and bands are added in order: colour and opacity, scale and two times
three attributes make degree 2 whole, and of degree 3 nothing arrives there. Cycles has no such limit.
"""

import bpy
import numpy as np

from .nodes import NodeWriter

EEVEE_DEGREE = 2
"""Highest degree whose attributes EEVEE reads."""
CHANNELS = ("red", "green", "blue")
C1 = 0.4886025119029199
C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def attribute_name(first: int, channel: str) -> str:
    """Return the name of the attribute that holds sh_first to sh_first+3 of a channel."""
    return f"splat_sh_{first}_{channel}"


def starts(degree: int) -> range:
    """Return the first coefficient of each group of four: nothing, (1), (1, 5) or (1, 5, 9, 13)."""
    return range(1, (degree + 1) ** 2, 4)


def packed(sh: np.ndarray) -> dict[str, np.ndarray]:
    """Return attribute name -> [n, 4] for harmonics [n, k, 3]; what no coefficient fills is 0."""
    count, terms, _ = sh.shape
    padded = np.zeros((count, 17, 3), np.float32)
    padded[:, :terms] = sh
    return {
        attribute_name(first, channel): padded[:, first : first + 4, index]
        for first in starts(int(np.sqrt(terms)) - 1)
        for index, channel in enumerate(CHANNELS)
    }


def instance_attribute(write: NodeWriter, name: str) -> bpy.types.Node:
    """Add a node that reads an attribute of the instance."""
    return write.add("ShaderNodeAttribute", name, attribute_type="INSTANCER", attribute_name=name)


def view_dependent(
    write: NodeWriter, colour: bpy.types.NodeSocket, degree: int, basis: bpy.types.NodeTree
) -> bpy.types.NodeSocket:
    """Return the sRGB colour of degree 0 with the other bands added."""
    group = write.add("ShaderNodeGroup", f"harmonics to degree {degree}")
    group.node_tree = basis
    write.feed(group.inputs[0], _direction(write))
    for place, first in enumerate(starts(degree)):  # in this order: see EEVEE above
        vector, value = group.outputs[2 * place], group.outputs[2 * place + 1]
        combine = write.add("ShaderNodeCombineXYZ", f"sh {first} to {first + 3}")
        for socket, channel in zip(combine.inputs, CHANNELS, strict=True):
            four = instance_attribute(write, attribute_name(first, channel))
            three = write.vector("DOT_PRODUCT", four.outputs["Vector"], vector)
            whole = first + 3 < (degree + 1) ** 2
            write.feed(socket, write.math("MULTIPLY_ADD", four.outputs["Alpha"], value, three) if whole else three)
        colour = write.vector("ADD", colour, combine.outputs[0])
    return colour


def _direction(write: NodeWriter) -> bpy.types.NodeSocket:
    """Return the unit vector from the camera to the splat's centre, along the splat's own axes but not scaled by them."""
    eye = write.add(
        "ShaderNodeVectorTransform", "camera", vector_type="POINT", convert_from="CAMERA", convert_to="OBJECT"
    )
    write.feed(eye.inputs[0], (0.0, 0.0, 0.0))
    stretched = write.vector("MULTIPLY", eye.outputs[0], instance_attribute(write, "splat_scale").outputs["Vector"])
    return write.scaled(write.vector("NORMALIZE", stretched), -1.0, label="camera to centre")


def basis_nodes(name: str, degree: int) -> bpy.types.NodeTree:
    """Return a node group: unit direction -> the basis from degree 1 on, three terms in a vector and the fourth alone.

    Order and signs as 3DGS has them (`splat_frames.sh_basis`), with x^2 + y^2 + z^2 = 1 put in.
    """
    tree = bpy.data.node_groups.new(name, "ShaderNodeTree")
    tree.interface.new_socket("Direction", in_out="INPUT", socket_type="NodeSocketVector")
    for first in starts(degree):
        tree.interface.new_socket(f"{first} to {first + 2}", in_out="OUTPUT", socket_type="NodeSocketVector")
        tree.interface.new_socket(f"{first + 3}", in_out="OUTPUT", socket_type="NodeSocketFloat")
    write = NodeWriter(tree)
    split = write.add("ShaderNodeSeparateXYZ")
    write.feed(split.inputs[0], write.add("NodeGroupInput").outputs[0])
    terms = _terms(write, *split.outputs, degree)
    target = write.add("NodeGroupOutput")
    for socket, term in zip(target.inputs, terms, strict=False):
        write.feed(socket, term)
    return tree


def _terms(
    write: NodeWriter, x: bpy.types.NodeSocket, y: bpy.types.NodeSocket, z: bpy.types.NodeSocket, degree: int
) -> list[bpy.types.NodeSocket]:
    """Return vector, value, vector, value and so on; a degree's missing last value is left out."""

    def three(*values: bpy.types.NodeSocket, factors: tuple[float, ...]) -> bpy.types.NodeSocket:
        combine = write.add("ShaderNodeCombineXYZ")
        for socket, value in zip(combine.inputs, values, strict=True):
            write.feed(socket, value)
        return write.vector("MULTIPLY", combine.outputs[0], factors)

    def times(*values: bpy.types.NodeSocket | float) -> bpy.types.NodeSocket:
        return write.math("MULTIPLY", *values)

    terms = [three(y, z, x, factors=(-C1, C1, -C1))]
    if degree == 1:
        return terms
    xx, yy, zz, xy = times(x, x), times(y, y), times(z, z), times(x, y)
    difference = write.math("SUBTRACT", xx, yy)
    terms += [
        times(xy, C2[0]),
        three(times(y, z), write.math("MULTIPLY_ADD", zz, 3.0, -1.0), times(x, z), factors=(-C2[0], C2[1], -C2[0])),
        times(difference, C2[2]),
    ]
    if degree == 2:
        return terms
    five = write.math("MULTIPLY_ADD", zz, 5.0, -1.0)  # 4 zz - xx - yy
    left = times(y, write.math("MULTIPLY_ADD", xx, 3.0, times(yy, -1.0)))
    right = times(x, write.math("MULTIPLY_ADD", yy, -3.0, xx))
    terms += [
        three(left, times(xy, z), times(y, five), factors=(-C3[0], C3[1], -C3[2])),
        times(times(z, write.math("SUBTRACT", five, 2.0)), C3[3]),
        three(times(x, five), times(z, difference), right, factors=(-C3[2], C3[4], -C3[0])),
    ]
    return terms
