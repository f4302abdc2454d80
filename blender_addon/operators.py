"""What an artist can press: File > Import > Turntable Result."""

import logging
from pathlib import Path

import bpy

from .errors import FixItError
from .scene import ImportOptions, import_result

logger = logging.getLogger(__name__)


class TURNTABLE_OT_import_result(bpy.types.Operator):
    """Import what Turntable made: splats, textured mesh, one camera per view and an orbit camera"""

    bl_idname = "turntable.import_result"
    bl_label = "Import Turntable Result"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012 - Blender reads this class attribute

    directory: bpy.props.StringProperty(name="Folder", description="Holds orbit.json", subtype="DIR_PATH")
    filter_folder: bpy.props.BoolProperty(default=True, options={"HIDDEN"})
    show: bpy.props.EnumProperty(
        name="Show",
        description="Mesh and splats stand in the same place; the other one is a tick in the Outliner away",
        items=[
            ("MESH", "Mesh", "Switch the textured mesh on"),
            ("SPLATS", "Splats", "Switch the splats on"),
            ("BOTH", "Both", "Switch both on"),
        ],
        default="MESH",
    )
    true_size: bpy.props.BoolProperty(
        name="True Size", description="Undo the normalisation: the asset's own size and place", default=False
    )
    pack_images: bpy.props.BoolProperty(
        name="Pack Pictures", description="Keep the pictures inside the .blend file", default=True
    )
    orbit_frames: bpy.props.IntProperty(
        name="Orbit Frames", description="Frames of one turn of the orbit camera", default=96, min=2, max=100_000
    )
    set_up_scene: bpy.props.BoolProperty(
        name="Set Up Scene",
        description="Set the view transform (Standard), the resolution and the frame range to the result's",
        default=False,
    )

    @classmethod
    def poll(cls, context: bpy.types.Context) -> bool:
        """Importing adds objects, which other modes forbid."""
        if context.mode != "OBJECT":
            cls.poll_message_set("Switch to Object Mode first")
            return False
        return True

    def invoke(self, context: bpy.types.Context, event: bpy.types.Event) -> set[str]:
        """Ask for the folder."""
        context.window_manager.fileselect_add(self)
        return {"RUNNING_MODAL"}

    def execute(self, context: bpy.types.Context) -> set[str]:
        """Import; whatever goes wrong is one line in the status bar and nothing in the file."""
        options = ImportOptions(
            show=self.show, true_size=self.true_size, pack_images=self.pack_images,
            orbit_frames=self.orbit_frames, set_up_scene=self.set_up_scene,
        )  # fmt: skip
        try:
            imported = import_result(Path(bpy.path.abspath(self.directory)), options)
        except FixItError as error:
            self.report({"ERROR"}, str(error))
            return {"CANCELLED"}
        except Exception as error:
            logger.exception("import of %s failed", self.directory)
            self.report(
                {"ERROR"}, f"Import failed ({error!r}). Nothing was added; please report this with the console's text."
            )
            return {"CANCELLED"}
        for note in imported.notes:
            self.report({"INFO"}, note)
        return {"FINISHED"}


def _menu(self: bpy.types.Menu, context: bpy.types.Context) -> None:
    self.layout.operator(TURNTABLE_OT_import_result.bl_idname, text="Turntable Result (folder)")


CLASSES = (TURNTABLE_OT_import_result,)


def register() -> None:
    """Add the operators and the menu entry."""
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    bpy.types.TOPBAR_MT_file_import.append(_menu)


def unregister() -> None:
    """Take them away again."""
    bpy.types.TOPBAR_MT_file_import.remove(_menu)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)
