"""The Blender add-on: brings what Turntable made into the scene. This file only registers.

Nothing here imports Blender before `register()`, so that the readers (`ply`, `result`) serve outside of it as well.
"""


def register() -> None:
    """Called by Blender when the extension is enabled."""
    from . import operators

    operators.register()


def unregister() -> None:
    """Called by Blender when the extension is disabled."""
    from . import operators

    operators.unregister()
