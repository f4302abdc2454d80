"""Render one object: ``python -m render_farm.worker JOB.json`` (see render_farm/job.py).

    importers.py   file -> objects in an empty scene
    normalise.py   what is visible -> one collection, instanced into the unit frame
    references.py  files that the importer never mentioned
    materials.py   missing textures -> neutral; base colour -> an AOV
    cycles.py      samples, light, passes, camera -> one EXR a view

Events on stdout: hello, imported, view (one each), done; or error. Everything else goes to stderr.
"""

import os
import resource
import sys
import time
import traceback
from pathlib import Path

from render_farm.job import Job
from render_farm.worker.events import Events, WorkerError

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""getrusage counts bytes on macOS, KiB elsewhere."""


def run(job: Job, events: Events) -> None:
    """Render all views of one job."""
    import bpy

    from render_farm.worker import cycles, importers, materials, normalise, references

    bpy.ops.wm.read_factory_settings(use_empty=True)
    device = cycles.choose_device(job.device)
    events.send("hello", blender=bpy.app.version_string, device=device)
    objects = importers.import_asset(job.asset, job.suffix)
    scene = normalise.new_scene()
    placed = normalise.place(scene, objects)
    missing = {*references.missing_references(Path(job.asset), job.suffix), *materials.replace_missing_textures()}
    materials.colour_bare_meshes()
    if "albedo" in job.passes:
        materials.add_base_colour_outputs()
    cycles.set_up(scene, job)
    events.send(
        "imported", scale=placed.scale, centre=placed.centre, triangles=placed.triangles, objects=placed.objects,
        warnings=sorted(missing),
    )  # fmt: skip
    camera = cycles.add_camera(scene, job)
    for view in job.views:
        started = time.monotonic()
        cycles.render_view(scene, camera, view)
        events.send("view", index=view.index, path=view.path, seconds=time.monotonic() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    events.send("done", cpu_seconds=time.process_time(), peak_bytes=peak)


def main(job_path: Path) -> int:
    """Run one job; every failure becomes an event."""
    events = Events()
    try:
        job = Job.load(job_path)
        # importing bpy writes to the user's settings, and finds add-ons there
        os.environ["BLENDER_USER_RESOURCES"] = str(Path(job.scratch) / "blender")
        run(job, events)
    except WorkerError as error:
        events.send("error", reason=error.reason, message=str(error))
    except ImportError as error:
        traceback.print_exc()
        message = f"Blender's Python module cannot be imported ({error}); install bpy (extra 'farm') and its libraries"
        events.send("error", reason="no-blender", message=message)
    except Exception as error:  # noqa: BLE001 - the worker's outermost loop: the parent has to hear of it
        traceback.print_exc()
        text = " ".join(str(error).split())
        events.send("error", reason="internal", message=f"the worker failed: {type(error).__name__}: {text}")
    else:
        return 0
    return 1


if __name__ == "__main__":
    status = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # bpy 4.2 crashes and 4.5 hangs in its own clean-up once an add-on has registered a handler
