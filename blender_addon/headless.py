"""A result folder becomes a .blend file and a preview picture, without a window.

    python -m blender_addon.headless RESULT_DIR --scene scene.blend --preview preview.png      (with the bpy module)
    blender -b -P blender_addon/headless.py -- RESULT_DIR --scene scene.blend --preview preview.png

One JSON line on stdout, everything else on stderr. Exit code 0: both files were written; 1: failure, one line says why
and how to go on; 2: wrong arguments.
"""

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scene import ImportedResult

if __name__ == "__main__" and not __package__:  # run by path, as Blender's -P does (PEP 366)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name
    __import__(__package__)

logger = logging.getLogger("blender_addon.headless")
PREVIEW_AZIMUTH_DEG = 30.0
"""Three-quarter view."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; exits with 2 where it is wrong."""
    parser = argparse.ArgumentParser(prog="blender_addon.headless", description=__doc__.split("\n")[0])
    parser.add_argument("result", type=Path, help="folder that a generation left")
    parser.add_argument("--scene", type=Path, required=True, help=".blend file to write")
    parser.add_argument(
        "--preview", type=Path, required=True, help="PNG to write: mesh on the left, splats on the right"
    )
    parser.add_argument("--size", type=int, default=512, help="pixels of each half of the preview (default 512)")
    parser.add_argument("--samples", type=int, default=64, help="Cycles samples (default 64)")
    parser.add_argument("--threads", type=int, default=_cores(), help="render threads (default: the cores at hand)")
    parser.add_argument("--true-size", action="store_true", help="the scene has the asset's own size and place")
    parser.add_argument("-v", "--verbose", action="store_true", help="show what Blender prints")
    chosen = parser.parse_args(arguments)
    for name in ("size", "samples", "threads"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(chosen, name)}")
    if chosen.scene.suffix != ".blend" or chosen.preview.suffix.lower() != ".png":
        parser.error("--scene must end in .blend and --preview in .png")
    return chosen


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(chosen: argparse.Namespace) -> dict[str, Any]:
    """Import, light, render and save; returns what the JSON line says.

    Raises FixItError, or OSError where a file cannot be written.
    """
    import bpy

    from .preview import render_preview
    from .scene import ImportOptions, import_result, to_true_size
    from .studio import build_studio, enlarge_studio, set_up_render

    started = time.monotonic()
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    imported = import_result(chosen.result, ImportOptions(show="BOTH", set_up_scene=True))
    logger.info("imported %s: %d views", imported.name, len(imported.cameras))
    scene.frame_set(_frame_at(imported, PREVIEW_AZIMUTH_DEG))
    floor = build_studio(scene, PREVIEW_AZIMUTH_DEG, imported)
    set_up_render(scene, chosen.size, chosen.samples, chosen.threads)
    for path in (chosen.scene, chosen.preview):
        path.parent.mkdir(parents=True, exist_ok=True)
    shown = render_preview(scene, imported, floor, chosen.preview)
    if chosen.true_size:  # last: the studio is built around the normalised asset
        enlarge_studio(to_true_size(imported))
    _save(chosen.scene)
    logger.info("done in %.1f s", time.monotonic() - started)
    return {
        "scene": str(chosen.scene.absolute()), "preview": str(chosen.preview.absolute()), "name": imported.name,
        "shown": shown, "views": len(imported.cameras), "notes": list(imported.notes),
        "blender": bpy.app.version_string,
    }  # fmt: skip


def _frame_at(imported: "ImportedResult", azimuth_deg: float) -> int:
    """Return the frame at which the orbit camera stands nearest to an azimuth."""
    frames = imported.orbit_camera["turntable_frames"]
    first = imported.cameras[0]["turntable_azimuth_deg"]
    return 1 + round((azimuth_deg - first) / 360.0 * frames) % frames


def _save(path: Path) -> None:
    """Write the .blend beside its name, then move it there: a crash leaves no half file."""
    import bpy

    partial = path.with_name(f".{path.stem}.partial.blend")
    try:
        bpy.ops.wm.save_as_mainfile(filepath=str(partial.absolute()), copy=True, compress=True, check_existing=False)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except RuntimeError as error:  # how Blender's operators fail
        raise OSError(f"{path}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns the exit code.

    Stdout belongs to the JSON line. What Blender prints there (a line for every sample) goes to stderr with --verbose
    and nowhere without; its warnings and errors come on stderr either way.
    """
    chosen = parse(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2 if chosen.verbose else os.open(os.devnull, os.O_WRONLY), 1)
    from .errors import FixItError

    private = None
    if "bpy" not in sys.modules and "BLENDER_USER_RESOURCES" not in os.environ:
        private = tempfile.mkdtemp(prefix="turntable-blender-")
        os.environ["BLENDER_USER_RESOURCES"] = private  # else importing bpy writes to the user's Blender settings
    try:
        line = json.dumps(run(chosen))
    except (FixItError, OSError) as error:
        logger.error("error: %s", error)
        return 1
    except Exception:
        logger.exception("error: the preview could not be made; please report this text.")
        return 1
    finally:
        if private is not None:
            shutil.rmtree(private, ignore_errors=True)
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        stream.write(line + "\n")
    return 0


if __name__ == "__main__":
    own = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    code = main(own)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # bpy 4.5 hangs in its own clean-up once a Python handler has been registered
