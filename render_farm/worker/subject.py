"""One object, from its file to its pictures.

importers.py    file -> objects in an empty session
posing.py       frame or rest pose; nothing moves afterwards
normalise.py    what is visible -> one collection, instanced into the unit frame (shapes.py measures it, parity.py sees
                to it that what is measured is what renders)
textures.py     missing ones -> neutral, large ones -> smaller      references.py  files never mentioned
transparency.py opacity as the policy says
appearance.py   what the materials look like, in facts
materials.py    base colour, roughness, metalness -> AOVs (surfaces.py reads the shaders)
cycles.py       samples, passes, camera -> one EXR a view           lights.py      light of each orbit
"""

import time
from pathlib import Path
from typing import Any

import bpy

from render_farm.job import Job
from render_farm.worker import (
    appearance,
    cycles,
    framing,
    importers,
    lights,
    materials,
    normalise,
    posing,
    references,
    stored,
    textures,
    transparency,
)
from render_farm.worker.events import Events, WorkerError, peak_bytes, rss_bytes, trim_memory
from render_farm.worker.stages import Stages

Facts = dict[str, Any]


def start(device: str) -> tuple[str, str]:
    """Bring Blender up with factory settings; return its version and the device that jobs of this kind will use."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        return bpy.app.version_string, cycles.choose_device(device)
    except WorkerError as error:  # each job that asks for it will say so
        return bpy.app.version_string, f"none: {error}"


def render(job: Job, events: Events, stages: Stages) -> None:
    """Render every view of every orbit.

    Raises:
        WorkerError: the object cannot be rendered, or not under its policy.
    """
    cpu_s = time.process_time()
    scene, facts, placed = prepare(job, stages)
    found = framing.outline(scene, placed.shapes, placed.matrix)
    events.send("imported", key=job.key, **facts)
    camera = cycles.add_camera(scene)
    for orbit in job.orbits:
        with stages.stage("setup", f"setting up {orbit.name}"):
            cycles.aim(camera, job, orbit)
            lights.set_light(scene, orbit.light, Path(job.hdri_folder) if job.hdri_folder else None)
        for view in orbit.views:
            words = f"{orbit.name} view {view.index}"
            before = dict(stages.seconds)
            framing.restrict(scene, job, framing.rectangle(found, job, orbit, view))
            with stages.stage("render", f"rendering {words}"):
                cycles.render_view(scene, camera, view)
            with stages.stage("write", f"writing {words}"):
                cycles.write_view(scene, view)
            spent = {name: stages.seconds[name] - before[name] for name in ("render_s", "write_s")}
            events.send("view", key=job.key, orbit=orbit.name, index=view.index, path=view.path, **spent)
    events.send(
        "done", key=job.key, stages=stages.seconds, cpu_s=time.process_time() - cpu_s, peak_bytes=peak_bytes(),
        rss_bytes=rss_bytes(),
    )  # fmt: skip


def prepare(job: Job, stages: Stages) -> tuple[bpy.types.Scene, Facts, normalise.Placed]:
    """Bring the object into the unit frame of a fresh scene, ready to render but for camera and light."""
    policy, asset = job.policy, Path(job.asset)
    with stages.stage("reset", "resetting"):
        # everything of the last object goes; preferences, which no asset can write, stay as `start` left them
        bpy.ops.wm.read_homefile(use_factory_startup=True, use_empty=True)
        trim_memory()
        device = cycles.choose_device(job.device)
    with stages.stage("import", "importing"), stored.remember_stored() as restore:
        importers.import_asset(job.asset, job.suffix)
    with stages.stage("measure", "posing and measuring"):
        picture = references.ply_texture(asset) if job.suffix == ".ply" else None
        materials.colour_bare_meshes(None if picture is None else asset.parent / picture)
        dropped, unseen = importers.drop_helpers()
        pose = posing.pose(bpy.context.scene, policy, restore)
        objects = importers.visible_objects(bpy.context.scene, bpy.context.view_layer)
        scene = normalise.new_scene(bpy.context.scene)
        placed = normalise.place(scene, objects, pose, policy)
    with stages.stage("materials", "preparing materials"):
        gone = [*references.missing_references(asset, job.suffix), *textures.replace_missing()]
        if gone and policy["missing_textures"] == "refuse":
            raise WorkerError("missing-textures", f"{gone[0].split(':')[0]}; put the file beside it, or allow neutral "
                              "colours")  # fmt: skip
        shrunk = textures.shrink(int(policy["max_texture_px"]))
        if job.suffix in {".glb", ".gltf"}:
            textures.part_colours_from_data()
        used = placed.materials()
        see_through = transparency.apply(used, policy["transparent"])
        looks = appearance.look(used)
        unread = materials.add_outputs(used, job.passes)
    with stages.stage("setup", "setting up"):
        cycles.set_up(scene, job, refracts=see_through.refracts)
    warnings = sorted(
        {*gone, *unseen, *pose.warnings, *placed.warnings, *shrunk.warnings, *see_through.warnings, *unread}
    )
    return scene, {
        **placed.facts, **pose.facts, **dropped, **shrunk.facts, **looks, "transparent": see_through.found,
        "refracts": see_through.refracts, "device": device, "warnings": warnings,
    }, placed  # fmt: skip
