"""Make the example: ``python -m render_farm.worker.example --out lighthouse.glb``.

    lighthouse.py  islet.py  harbour.py      numpy solids, each with the name of its paint
                 \\     |     /
                 assemble.py, charts.py      exact booleans -> one closed mesh -> unwrap
                      |
            texture.py + palette.py          the place behind each texel -> its colour
                      |
                 assemble.py                 material, GLB

Prints the path of the GLB on stdout; progress goes to stderr.
"""

import argparse
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

log = logging.getLogger("render_farm.worker.example")

SEED = 20
ATLAS_PX = 1536
JPEG_QUALITY = 90
TOWER_AT = (-0.95, 0.45, 2.0)
COTTAGE_AT = (1.5, 0.4, 2.0)
OFFSET_M = (2.3, -1.4, 0.6)
"""The object stands off its origin on purpose: whoever reads it has to normalise it."""


def make(out: Path) -> None:
    """Build, paint and export the example to ``out``."""
    import bpy  # noqa: F401  (first: bmesh and mathutils exist only after it)

    from render_farm.worker.example import assemble, harbour, islet, lighthouse, solids, texture

    assemble.reset()
    shape_rng, paint_rng = np.random.default_rng(SEED).spawn(2)
    tower = [part.moved(solids.pose(TOWER_AT)) for part in lighthouse.lighthouse()]
    parts = [*islet.islet(shape_rng), *tower, *harbour.harbour(COTTAGE_AT)]
    whole, pieces = assemble.join_parts(parts)
    surface = assemble.unwrap(whole, pieces, OFFSET_M)
    log.info("one mesh of %d triangles from %d solids", len(surface.solid), len(pieces))
    assemble.dress(whole, "lighthouse", texture.paint_atlas(surface, pieces, ATLAS_PX, paint_rng), JPEG_QUALITY)
    assemble.export(out)


def write(out: Path) -> None:
    """Write ``out`` whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.stem}.{os.getpid()}.glb")  # the exporter insists on the extension
    try:
        make(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def main() -> int:
    """Read the arguments and write the file; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m render_farm.worker.example", description="Make the example object."
    )
    parser.add_argument("--out", type=Path, required=True, help="the GLB to write, for example lighthouse.glb")
    out: Path = parser.parse_args().out
    if out.suffix != ".glb":
        parser.error(f"--out must end in .glb, got {out.name!r}: name it {out.stem}.glb")
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(name)s: %(message)s")
    stdout = os.dup(1)
    os.dup2(2, 1)  # Blender and its exporter chat on stdout, which is for the result alone
    private = tempfile.mkdtemp(prefix="turntable_blender_")
    os.environ["BLENDER_USER_RESOURCES"] = private  # before bpy is imported: it writes there at once
    try:
        write(out)
    finally:
        shutil.rmtree(private, ignore_errors=True)
        os.dup2(stdout, 1)
    sys.stdout.write(f"{out}\n")
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        log.exception("the example was not made")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # bpy 4.5 hangs at a regular exit once an add-on has registered a handler
