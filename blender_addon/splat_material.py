"""The shader that draws one ellipsoid as a 3D Gaussian, in Cycles and in EEVEE.

    ray in the splat's own space (unit: standard deviations)
        |  closest approach d to the centre
        v
    alpha = opacity * exp(-d^2 / 2)   on front faces within CUTOFF, else nothing
        |
    mix(transparent, emission(colour), alpha)

The closest approach is exact: along a line the 3D Gaussian's largest value is exp(-d^2 / 2), and for parallel rays that
profile is the projected 2D Gaussian of Kerbl et al. 2023, eq. 5 (the Schur complement of its precision matrix), without
their affine approximation of the perspective. Emission carries the baked light, so lamps do not touch the splats.
"""

import bpy

from .nodes import Input, NodeWriter
from .splat_harmonics import basis_nodes, instance_attribute, view_dependent

CUTOFF = 3.0
"""Standard deviations drawn; at 2 the missing tails cost 4 dB (sRGB: 13 dB) against a reference, at 3 nothing more is won."""


def splat_material(name: str, degree: int) -> bpy.types.Material:
    """Return a new material that evaluates spherical harmonics up to a degree, 0 to 3."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    material.use_backface_culling = True  # EEVEE; the shader itself does it for Cycles
    material.surface_render_method = "DITHERED"  # EEVEE: right whatever the order of the instances
    material.cycles.emission_sampling = "NONE"  # thousands of tiny lamps would only slow the light tree
    write = NodeWriter(material.node_tree)
    flat = instance_attribute(write, "splat_colour")  # alpha: the opacity
    alpha = _alpha(write, flat.outputs["Alpha"])
    colour = flat.outputs["Vector"]
    if degree:
        colour = view_dependent(write, colour, degree, basis_nodes(f"{name} Harmonics", degree))
    transparent = write.add("ShaderNodeBsdfTransparent")
    emission = write.add("ShaderNodeEmission")
    write.feed(emission.inputs["Color"], linear_from_srgb(write, colour))
    mix = write.add("ShaderNodeMixShader")
    write.feed(mix.inputs[0], alpha)
    write.feed(mix.inputs[1], transparent.outputs[0])
    write.feed(mix.inputs[2], emission.outputs[0])
    write.feed(write.add("ShaderNodeOutputMaterial").inputs["Surface"], mix.outputs[0])
    return material


def _alpha(write: NodeWriter, opacity: bpy.types.NodeSocket) -> bpy.types.NodeSocket:
    geometry = write.add("ShaderNodeNewGeometry")
    turn = write.add("ShaderNodeVectorTransform", vector_type="VECTOR", convert_from="WORLD", convert_to="OBJECT")
    write.feed(turn.inputs[0], geometry.outputs["Incoming"])
    place = write.add("ShaderNodeTexCoord").outputs["Object"]
    moment = write.vector("CROSS_PRODUCT", place, write.vector("NORMALIZE", turn.outputs[0]), label="closest approach")
    squared = write.vector("DOT_PRODUCT", moment, moment, label="d^2")
    falloff = write.math("EXPONENT", write.math("MULTIPLY", squared, -0.5))
    inside = write.math("LESS_THAN", squared, CUTOFF**2)
    front = write.math("SUBTRACT", 1.0, geometry.outputs["Backfacing"], label="front face")
    return write.math("MULTIPLY", write.math("MULTIPLY", opacity, falloff), write.math("MULTIPLY", inside, front))


def linear_from_srgb(write: NodeWriter, colour: Input) -> bpy.types.NodeSocket:
    """Add IEC 61966-2-1, per channel; below 0 becomes 0 as in the 3DGS renderer."""
    colour = write.vector("MAXIMUM", colour, (0.0, 0.0, 0.0), label="sRGB to linear")
    curve = write.add("ShaderNodeGamma")
    write.feed(curve.inputs[0], write.scaled(write.vector("ADD", colour, (0.055,) * 3), 1 / 1.055))
    write.feed(curve.inputs[1], 2.4)
    step = write.scaled(write.vector("SUBTRACT", colour, (0.04045,) * 3), 1e6)
    step = write.vector("MINIMUM", write.vector("MAXIMUM", step, (0.0,) * 3), (1.0,) * 3, label="above the knee")
    mix = write.add("ShaderNodeMix", data_type="VECTOR", factor_mode="NON_UNIFORM")
    vectors = [socket for socket in mix.inputs if socket.type == "VECTOR"]  # factor, A, B
    for socket, value in zip(vectors, (step, write.scaled(colour, 1 / 12.92), curve.outputs[0]), strict=True):
        write.feed(socket, value)
    return next(socket for socket in mix.outputs if socket.type == "VECTOR")
