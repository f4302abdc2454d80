"""Both ends of a job: planned orbits -> `Job` for the child; the child's EXRs -> `OrbitImages`. No process, no clock.

plan_orbits -> make_job -> Blender.run -> gather -> checks -> write_orbit
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from engine.files import Normalisation, OrbitImages
from engine.geometry import frames
from render_farm.blender import JobResult, full_disk
from render_farm.cameras import PlannedOrbit
from render_farm.checks.pictures import measure_coverage
from render_farm.convert import Channels, convert_view, read_channels
from render_farm.errors import FarmError
from render_farm.job import Job, OrbitJob, ViewJob
from render_farm.process import Event
from render_farm.records import Provenance
from render_farm.spec import PASSES, Execution, RenderSpec

KINDS = ("rgba", "depth_m", "normal", "albedo", "camera_normal", "material")
NOISE_SEEDS = 2**31
"""Cycles' seed is a signed 32-bit number."""
ELSEWHERE = frozenset({"event", "key", "scale", "centre", "warnings", "triangles", "objects", "device"})
"""Facts of `imported` that have a place of their own in an orbit's json."""


def make_job(
    task_key: str,
    asset_path: Path,
    suffix: str,
    *,
    planned: tuple[PlannedOrbit, ...],
    seed: int,
    spec: RenderSpec,
    execution: Execution,
    folder: Path,
) -> Job:
    """Write down everything the child needs: it knows nothing of orbits, only of matrices.

    Args:
        task_key: names the work.
        asset_path: the model, absolute.
        suffix: its format.
        planned: what `plan_orbits` gives.
        seed: the task's.
        spec: what to render.
        execution: how.
        folder: an existing folder for the EXRs, of this job alone.
    """
    orbits = tuple(
        OrbitJob(item.orbit.name, item.orbit.focal_px, item.orbit.principal_px, item.light, _views(item, folder))
        for item in planned
    )
    return Job(
        key=task_key, asset=str(asset_path), suffix=suffix, width=spec.width, height=spec.height, orbits=orbits,
        policy=asdict(spec.assets), samples=spec.samples, seed=seed % NOISE_SEEDS, denoise=spec.denoise,
        passes=tuple(name for name in PASSES if name in spec.passes), device=execution.device,
        threads=execution.threads, hdri_folder=execution.hdri_folder,
    )  # fmt: skip


def _views(item: PlannedOrbit, folder: Path) -> tuple[ViewJob, ...]:
    poses = frames.to_blender(item.orbit.T_world_camera)
    return tuple(
        ViewJob(i, tuple(tuple(float(x) for x in row) for row in pose), str(folder / f"{item.orbit.name}.{i:03d}.exr"))
        for i, pose in enumerate(poses)
    )


def gather(
    uid: str,
    provenance: Provenance,
    spec: RenderSpec,
    *,
    planned: tuple[PlannedOrbit, ...],
    seed: int,
    key: str,
    sha256: str,
    result: JobResult,
) -> tuple[OrbitImages, ...]:
    """Convert the EXRs of a job into its orbits, in the order of `planned`. The EXRs stay where they are.

    Args:
        uid: the object's id.
        provenance: goes into the json.
        spec: what was rendered.
        planned: what the job was made of.
        seed: the task's.
        key: the task's.
        sha256: of the asset.
        result: what `Blender.run` gave.

    Raises:
        FarmError: `bad-output`: an EXR cannot be read, or is not what was asked for; `disk-full`: that is why.
    """
    renderer = renderer_facts(spec, key, sha256, result)
    x, y, z = (float(value) for value in result.imported["centre"])
    normalisation = Normalisation(float(result.imported["scale"]), (x, y, z))
    gathered = []
    for item in planned:
        arrays = _arrays(item, result.views[item.orbit.name], spec.passes)
        warnings = [*result.imported["warnings"], *border_warnings(arrays["rgba"])]
        images = OrbitImages(
            uid=uid, orbit=item.orbit, **arrays, normalisation=normalisation, seed=seed,
            renderer=renderer | {"light": item.light, "warnings": warnings}, **asdict(provenance),
        )  # fmt: skip
        gathered.append(images)
    return tuple(gathered)


def _arrays(item: PlannedOrbit, paths: Sequence[Path], passes: tuple[str, ...]) -> dict[str, Any]:
    """Stack the views of one orbit, one file at a time: a hundred large pictures are in memory once, not twice."""
    if len(paths) != len(item.orbit):
        raise FarmError("bad-output", f"{item.orbit.name}: expected {len(item.orbit)} EXRs, found {len(paths)}")
    arrays: dict[str, Any] = {}
    shape = (item.orbit.height, item.orbit.width)
    for index, (path, pose) in enumerate(zip(paths, item.orbit.T_world_camera, strict=True)):
        view = convert_view(_read(path, shape), passes, pose)
        if view.rgba.shape[:2] != shape:
            raise FarmError("bad-output", f"{path.name} must be {shape[0]} x {shape[1]}, got {view.rgba.shape[:2]}")
        for kind in KINDS:
            image = getattr(view, kind)
            if image is None:
                continue
            if kind not in arrays:
                arrays[kind] = np.empty((len(paths), *image.shape), image.dtype)
            arrays[kind][index] = image
    return arrays


def _read(path: Path, shape: tuple[int, int]) -> Channels:
    try:
        return read_channels(path)
    except FarmError as error:
        full = full_disk((path.parent,), shape[1], shape[0])
        if full is None:
            raise
        raise FarmError("disk-full", f"{full} ({error.args[0]}); make room or choose another folder") from error


def renderer_facts(spec: RenderSpec, key: str, sha256: str, result: JobResult) -> dict[str, Any]:
    """What made the pictures; nothing here depends on the clock or the machine's load."""
    hello, imported = result.hello, result.imported
    return {
        "engine": "cycles", "blender": hello["blender"], "device": imported.get("device", hello["device"]), "samples": spec.samples,
        "denoise": spec.denoise, "view_transform": "Standard", "triangles": imported["triangles"],
        "objects": imported["objects"], "asset": asset_facts(imported), "policy": asdict(spec.assets),
        "asset_sha256": sha256, "spec": spec.canonical_json(), "task_key": key,
    }  # fmt: skip


def asset_facts(imported: Event) -> dict[str, Any]:
    """What was found in the asset and done to it, beyond size and place. Times and memory are left out by their unit."""
    return {
        name: value for name, value in imported.items() if name not in ELSEWHERE and not name.endswith(("_s", "_bytes"))
    }


def border_warnings(rgba: UInt8[np.ndarray, "n h w 4"]) -> list[str]:
    """A sentence if the object touches the edge of pictures: it is cropped there."""
    touching = measure_coverage(np.ascontiguousarray(rgba[..., 3])).cropped_views
    if not touching:
        return []
    return [f"the object reaches the edge of {len(touching)} of {len(rgba)} pictures (first: view {touching[0]})"]
