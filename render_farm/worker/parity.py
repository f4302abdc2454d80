"""Blender keeps two versions of much: one for the viewport, one for a render. Python can only measure the first, Cycles
shows the second; here the first becomes the second, so that the box is the box of what shows.

What asks by itself which of the two it is in (the geometry node Is Viewport) stays different: the checks of depth find it.
"""

import bpy


def measure_what_renders() -> None:
    """Give the viewport every modifier, level, particle and instancer of a render. Nothing is evaluated here."""
    for item in bpy.data.objects:
        item.show_instancer_for_viewport = item.show_instancer_for_render
        for modifier in item.modifiers:
            modifier.show_viewport = modifier.show_render
            if modifier.type in {"SUBSURF", "MULTIRES"}:
                modifier.levels = modifier.render_levels
    for particles in bpy.data.particles:
        particles.display_percentage = 100
        particles.child_percent = particles.rendered_child_count
    for curve in bpy.data.curves:
        curve.render_resolution_u = curve.render_resolution_v = 0  # that of the viewport
    for ball in bpy.data.metaballs:
        ball.resolution = ball.render_resolution
