"""One object: asset and spec in, a validated orbit on disk out. The unit of work of the farm.

load_asset -> task_seed -> task_orbit -> Job.json
                                           |          child: python -m render_farm.worker
                        EXR of each view <-+--------- hello, imported, view, view, ..., done
                             |
                   convert_view -> OrbitImages -> checks -> engine.files.write_orbit -> UID.RING.json
"""

import contextlib
import logging
import os
import re
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from engine.errors import OrbitError
from engine.files import Normalisation, OrbitImages, read_orbit, write_orbit
from engine.geometry import Orbit, frames
from render_farm.assets import Asset, load_asset
from render_farm.convert import ViewImages, convert_view, read_channels
from render_farm.errors import REASONS, FarmError
from render_farm.job import Job, ViewJob
from render_farm.process import ChildEnd, ChildTimeoutError, Deadline, Event, child_environment, run_child
from render_farm.spec import Execution, RenderSpec, task_key, task_orbit, task_seed

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "render_farm.worker")
"""The child; a job file is appended."""
PARTIAL = re.compile(r"\.(?P<host>.+)\.(?P<pid>\d+)\.[^.]+\.partial")
"""Names of working folders: who made them."""
CHANNEL_BYTES, MOST_CHANNELS = 4, 24
"""Of one pixel of Blender's EXR; a disk that does not hold a few pictures is called full."""
Progress = Callable[[int, int], None]
"""Called with views done and views in all."""


@dataclass(frozen=True)
class Provenance:
    """What is known about the object beyond its shape; goes into the orbit's json."""

    caption: str = ""
    """One sentence."""
    label: str = ""
    """Its class."""
    license: str = ""
    """SPDX id."""
    attribution: str = ""
    """Who made it."""


@dataclass(frozen=True)
class RenderReport:
    """What a call of `render_asset` did."""

    path: Path
    """The orbit's json."""
    reused: bool
    """A whole orbit of this asset and spec was there already."""
    views: int
    """Pictures."""
    warnings: tuple[str, ...]
    """One sentence each; also in the orbit's `renderer.warnings`."""
    wall_s: float
    """Seconds."""
    cpu_s: float
    """CPU seconds of the child."""
    peak_bytes: int
    """Peak memory of the child."""


@dataclass
class _Run:
    """What the events of one child have told so far."""

    views: list[ViewImages | None]
    hello: Event = field(default_factory=dict)
    imported: Event = field(default_factory=dict)
    done: Event = field(default_factory=dict)


def render_asset(
    path: Path,
    out: Path,
    spec: RenderSpec,
    *,
    execution: Execution | None = None,
    uid: str | None = None,
    provenance: Provenance | None = None,
    progress: Progress | None = None,
    worker: tuple[str, ...] = WORKER,
) -> RenderReport:
    """Render one object's orbit into a folder, or find that it is there already.

    Args:
        path: the model.
        out: folder for the orbit; made where missing.
        spec: what to render.
        execution: how.
        uid: the object's id; its file name by default.
        provenance: goes into the json.
        progress: is told each finished view.
        worker: command of the child.

    Raises:
        FarmError: with a reason; nothing of this call is left behind.
        TurntableError: the file system refused the result.
    """
    started = time.monotonic()
    execution, provenance = execution or Execution(), provenance or Provenance()
    asset = load_asset(path, uid)
    seed = task_seed(asset.sha256, spec)
    orbit = task_orbit(seed, spec)
    key = task_key(asset.sha256, spec)
    existing = find_whole(out / f"{asset.uid}.{orbit.name}.json", key)
    if existing is not None:
        log.info("%s is whole and made from this asset and spec: nothing to do", existing.path)
        return existing
    with working_folder(out) as scratch:
        job = make_job(asset, spec, execution, orbit, seed, scratch)
        run = _run_worker(asset.path.name, job, execution, scratch, worker, progress)
        images = _gather(asset, spec, execution, orbit, seed, key, run, provenance)
        check_pictures(asset.path.name, images)
        try:
            json_path = write_orbit(out, images)
        except OSError as error:
            raise FarmError("write-failed", f"cannot write to {out}: {error.strerror}; make room or choose another "
                            "folder") from error  # fmt: skip
    warnings = tuple(images.renderer["warnings"])
    for warning in warnings:
        log.warning("%s: %s", asset.path.name, warning)
    return RenderReport(
        json_path, False, len(orbit), warnings, time.monotonic() - started, float(run.done["cpu_seconds"]),
        int(run.done["peak_bytes"]),
    )  # fmt: skip


def find_whole(json_path: Path, key: str) -> RenderReport | None:
    """Return a report of an orbit that is there, validates, and was made from the same asset and spec."""
    if not json_path.is_file():
        return None
    try:
        images = read_orbit(json_path)
    except OrbitError as error:
        log.warning("rendering again: %s", error)
        return None
    if images.renderer.get("task_key") != key:
        log.warning("%s was made from another asset or spec: rendering again", json_path)
        return None
    return RenderReport(json_path, True, len(images.orbit), tuple(images.renderer.get("warnings", ())), 0.0, 0.0, 0)


# ------------------------------------------------------------------------------------------------ the job
def make_job(asset: Asset, spec: RenderSpec, execution: Execution, orbit: Orbit, seed: int, scratch: Path) -> Job:
    """Write down everything the child needs: it knows nothing of orbits, only of matrices."""
    poses = frames.to_blender(orbit.T_world_camera)
    views = tuple(
        ViewJob(i, tuple(tuple(float(x) for x in row) for row in pose), str(scratch / f"view_{i:03d}.exr"))
        for i, pose in enumerate(poses)
    )
    return Job(
        asset=str(asset.path), suffix=asset.suffix, scratch=str(scratch), width=orbit.width, height=orbit.height,
        focal_px=orbit.focal_px, principal_px=orbit.principal_px, views=views, samples=spec.samples,
        seed=seed % 2**31, denoise=spec.denoise, light=spec.light, passes=tuple(spec.passes),
        device=execution.device, threads=execution.threads,
    )  # fmt: skip


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Yield a folder of our own in `out`, gone afterwards; a folder `out` made for nothing goes too.

    Raises:
        FarmError: `out` cannot be made or written to.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        _clear_stale(out)
        prefix = f".{socket.gethostname().replace('/', '_')}.{os.getpid()}."
        scratch = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=out)).resolve()
    except OSError as error:
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise FarmError("write-failed", f"cannot write to {out}: {error.strerror}; choose another folder") from error
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        for folder in made:  # only those that stayed empty
            with contextlib.suppress(OSError):
                folder.rmdir()


def _clear_stale(out: Path) -> None:
    """Remove working folders of processes of this machine that were killed."""
    for folder in out.glob(".*.partial"):
        match = PARTIAL.fullmatch(folder.name)
        if match and match["host"] == socket.gethostname() and not _is_alive(int(match["pid"])):
            log.info("removing %s, left by a killed run", folder)
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


# ------------------------------------------------------------------------------------------------ the child
def _run_worker(
    name: str, job: Job, execution: Execution, scratch: Path, worker: tuple[str, ...], progress: Progress | None
) -> _Run:
    """Run the child over one job, converting each picture as it comes."""
    job_path = scratch / "job.json"
    try:
        job.save(job_path)
    except OSError as error:
        raise FarmError("write-failed", f"cannot write to {scratch.parent}: {error.strerror}; make room or choose "
                        "another folder") from error  # fmt: skip
    run = _Run([None] * len(job.views))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        end = run_child(
            [*worker, str(job_path)],
            env=child_environment(scratch, execution.threads),
            first=Deadline("starting Blender", execution.start_timeout_s),
            on_event=lambda event: _take(run, event, job, execution, progress),
        )
    except ChildTimeoutError as error:
        raise FarmError("timeout", f"{name}: {error.args[0]}; raise the time limit or simplify the model",
                        error.detail) from error  # fmt: skip
    except FarmError as error:
        raise FarmError(error.reason, f"{name}: {error.args[0]}", error.detail) from error
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    log.debug("child: %.1f s user, %.1f s system", after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)
    if not run.done or any(view is None for view in run.views):
        raise _crash(name, end)
    return run


def _take(run: _Run, event: Event, job: Job, execution: Execution, progress: Progress | None) -> Deadline | None:
    """Take in one event and return what has to come next, and when."""
    kind = event["event"]
    if kind == "hello":
        run.hello = event
        return Deadline("importing", execution.import_timeout_s)
    if kind == "imported":
        run.imported = event
        return Deadline("rendering view 0", execution.first_view_timeout_s)
    if kind == "view":
        _take_view(run, event, job)
        ready = sum(view is not None for view in run.views)
        if progress is not None:
            progress(ready, len(run.views))
        return Deadline(f"rendering view {ready}", execution.view_timeout_s)
    if kind == "done":
        run.done = event
        return None
    if kind == "error" and event.get("reason") in REASONS:
        raise FarmError(str(event["reason"]), str(event.get("message")))
    raise FarmError("internal", f"the worker sent an event that is not known: {dict(event)}")


def _take_view(run: _Run, event: Event, job: Job) -> None:
    index = int(event["index"])
    path = Path(job.views[index].path)
    try:
        images = convert_view(read_channels(path), job.passes)
    except FarmError as error:
        free = shutil.disk_usage(path.parent).free
        if error.reason == "bad-output" and free < 4 * CHANNEL_BYTES * MOST_CHANNELS * job.width * job.height:
            raise FarmError("write-failed", f"disk full: Blender could not write view {index}, {free} bytes are free; make "
                            "room or choose another folder") from error  # fmt: skip
        raise
    if images.rgba.shape[:2] != (job.height, job.width):
        raise FarmError("bad-output", f"view {index} must be {job.height} x {job.width}, got {images.rgba.shape[:2]}")
    run.views[index] = images
    path.unlink()


def _crash(name: str, end: ChildEnd) -> FarmError:
    if end.returncode == -signal.SIGKILL:
        hint = "out of memory? give it more, or simplify the model"
    else:
        hint = "see its last words with -v; the model may be broken"
    return FarmError("crash", f"{name}: Blender {end.how} while {end.stage}; {hint}", end.tail)


# ------------------------------------------------------------------------------------------------ the result
def _gather(
    asset: Asset, spec: RenderSpec, execution: Execution, orbit: Orbit, seed: int, key: str, run: _Run,
    provenance: Provenance,
) -> OrbitImages:  # fmt: skip
    views = [view for view in run.views if view is not None]

    def stack(name: str) -> Any:
        arrays = [getattr(view, name) for view in views]
        return None if arrays[0] is None else np.stack(arrays)

    rgba = stack("rgba")
    warnings = [*run.imported["warnings"], *border_warnings(rgba)]
    renderer = _renderer_facts(asset, spec, execution, key, run.hello, run.imported) | {"warnings": warnings}
    x, y, z = (float(value) for value in run.imported["centre"])
    return OrbitImages(
        uid=asset.uid, orbit=orbit, rgba=rgba, depth_m=stack("depth_m"), normal=stack("normal"),
        albedo=stack("albedo"), normalisation=Normalisation(float(run.imported["scale"]), (x, y, z)), seed=seed,
        renderer=renderer, caption=provenance.caption, label=provenance.label, license=provenance.license,
        attribution=provenance.attribution, source=asset.path.name,
    )  # fmt: skip


def _renderer_facts(
    asset: Asset, spec: RenderSpec, execution: Execution, key: str, hello: Event, imported: Event
) -> dict[str, Any]:
    """What made the pictures; nothing here depends on the clock or the machine's load."""
    return {
        "engine": "cycles", "blender": hello["blender"], "device": hello["device"], "samples": spec.samples,
        "denoise": spec.denoise, "light": spec.light, "view_transform": "Standard", "triangles": imported["triangles"],
        "objects": imported["objects"], "asset_sha256": asset.sha256, "spec": spec.canonical_json(), "task_key": key,
    }  # fmt: skip


def border_warnings(rgba: UInt8[np.ndarray, "n h w 4"]) -> list[str]:
    """A sentence if the object touches the edge of pictures: it is cropped there."""
    alpha = rgba[..., 3]
    edges = np.stack([alpha[:, 0].max(1), alpha[:, -1].max(1), alpha[:, :, 0].max(1), alpha[:, :, -1].max(1)])
    touching = np.flatnonzero(edges.max(0) > 0).tolist()
    if not touching:
        return []
    return [f"the object reaches the edge of {len(touching)} of {len(rgba)} pictures (first: view {touching[0]})"]


def check_pictures(name: str, images: OrbitImages) -> None:
    """Raise FarmError if the pictures cannot be right."""
    if not images.rgba[..., 3].any():
        raise FarmError("blank", f"{name}: all {len(images.orbit)} pictures are empty: expected the object, found "
                        "nothing opaque; are its materials fully transparent?")  # fmt: skip
