"""All or nothing: data-blocks made inside the block disappear if it fails, and the scene is as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import bpy


def data_blocks() -> set[bpy.types.ID]:
    """Return every data-block of the file."""
    found: set[bpy.types.ID] = set()
    for name in dir(bpy.data):
        group = getattr(bpy.data, name)
        if isinstance(group, bpy.types.bpy_prop_collection):
            found.update(group)
    return found


@contextmanager
def all_or_nothing(scene: bpy.types.Scene) -> Iterator[None]:
    """Remove what was added and restore the scene's touched settings and the selection if the block raises."""
    before, settings = data_blocks(), _settings(scene)
    layer = bpy.context.view_layer
    selected, active = set(bpy.context.selected_objects), layer.objects.active
    try:
        yield
    except BaseException:
        bpy.data.batch_remove(data_blocks() - before)
        for owner, name, value in settings:
            setattr(owner, name, value)
        layer.update()  # drops the gaps that removed objects leave
        for target in layer.objects:
            target.select_set(target in selected)
        layer.objects.active = active
        raise


def _settings(scene: bpy.types.Scene) -> list[tuple[bpy.types.bpy_struct, str, object]]:
    owners = [
        (scene, ("camera", "frame_start", "frame_end", "frame_current")),
        (scene.render, ("fps", "fps_base", "resolution_x", "resolution_y", "resolution_percentage")),
        (scene.view_settings, ("view_transform", "look", "exposure", "gamma")),
    ]
    if hasattr(scene, "cycles"):
        owners.append((scene.cycles, ("transparent_max_bounces",)))
    return [(owner, name, getattr(owner, name)) for owner, names in owners for name in names]
