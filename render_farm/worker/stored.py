"""How a glTF file stores its nodes and shape keys, before its importer shows the first frame of an animation."""

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import bpy

Restore = Callable[[], None]


@contextmanager
def remember_stored() -> Iterator[list[Restore]]:
    """Within this block a glTF import fills the list with functions that put transforms and shape keys back."""
    restore: list[Restore] = []
    try:
        scene = importlib.import_module("io_scene_gltf2.blender.imp.scene").BlenderScene
        original = scene.create_animations
    except (ImportError, AttributeError):  # another importer: the list stays empty, and posing says so
        yield restore
        return

    def create_animations(gltf: Any) -> None:
        restore.extend(_of_object(item) for item in bpy.data.objects)
        restore.extend(_of_key(block) for keys in bpy.data.shape_keys for block in keys.key_blocks)
        original(gltf)

    scene.create_animations = staticmethod(create_animations)
    try:
        yield restore
    finally:
        scene.create_animations = staticmethod(original)


def _of_object(item: bpy.types.Object) -> Restore:
    basis = item.matrix_basis.copy()

    def restore() -> None:
        item.matrix_basis = basis

    return restore


def _of_key(block: Any) -> Restore:
    value = float(block.value)

    def restore() -> None:
        block.value = value

    return restore
