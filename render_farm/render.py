"""One object: asset and spec in, validated orbits on disk out. The unit of work of the farm, by itself.

load_asset -> task_seed -> plan_orbits -> make_job -> Blender.run (python -m render_farm.worker)
                                                           |
                    EXR of each view -> gather -> OrbitImages -> examine -> UID.ORBIT.json, all orbits or none
"""

import contextlib
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import OrbitError
from engine.files import OrbitImages, read_orbit, write_orbit
from engine.files.atomic import sync_folder
from render_farm.assets import Asset, load_asset
from render_farm.blender import WORKER, Blender, JobResult
from render_farm.cameras import PlannedOrbit, plan_orbits
from render_farm.checks import examine
from render_farm.errors import FarmError
from render_farm.gather import gather, make_job
from render_farm.process import Event
from render_farm.records import Filters, Provenance
from render_farm.run.owner import Owner
from render_farm.spec import Execution, RenderSpec, task_key, task_seed

log = logging.getLogger(__name__)

PARTIAL = re.compile(r"\.(?P<owner>.+)\.[^.]+\.partial")
"""Names of working folders: who made them."""
IMAGE = re.compile(r"[a-z_]+_\d+\.(webp|png)")
"""What follows UID.ORBIT. in the names of an orbit's pictures."""
FLAGS = {
    "blank": "some pictures are empty, as of a flat object seen from its edge",
    "over-exposed": "much of the object is clipped to white; lower the light's strength",
}
"""What the checks flag, in words; of `cropped` gather has said which views."""
Progress = Callable[[int, int], None]
"""Called with views done and views in all."""


@dataclass(frozen=True)
class RenderReport:
    """What a call of `render_asset` did."""

    paths: tuple[Path, ...]
    """The json of each orbit, target views first."""
    reused: bool
    """Whole orbits of this asset and spec were there already."""
    views: int
    """Pictures of all orbits."""
    warnings: tuple[str, ...]
    """One sentence each; also in the orbits' `renderer.warnings`."""
    wall_s: float
    """Seconds."""
    cpu_s: float
    """CPU seconds of the child."""
    peak_bytes: int
    """Peak memory of the child."""

    @property
    def path(self) -> Path:
        """The json of the first orbit."""
        return self.paths[0]


def render_asset(
    path: Path,
    out: Path,
    spec: RenderSpec,
    *,
    execution: Execution | None = None,
    uid: str | None = None,
    provenance: Provenance | None = None,
    filters: Filters | None = None,
    progress: Progress | None = None,
    worker: tuple[str, ...] = WORKER,
) -> RenderReport:
    """Render one object's orbits into a folder, or find that they are there already.

    Args:
        path: the model.
        out: folder for the orbits; made where missing.
        spec: what to render.
        execution: how.
        uid: the object's id; its file name by default.
        provenance: goes into the json; its source is the file's name by default.
        filters: what is refused though it is right; the farm's defaults by default.
        progress: is told each finished view.
        worker: command of the child.

    Raises:
        FarmError: with a reason; nothing of this call is left behind.
        TurntableError: the file system refused the result.
    """
    started = time.monotonic()
    asset = load_asset(path, uid, spec.assets)
    planned = plan_orbits(task_seed(asset.sha256, spec), spec)
    key = task_key(asset.sha256, spec)
    existing = find_whole(tuple(out / f"{asset.uid}.{item.orbit.name}.json" for item in planned), key)
    if existing is not None:
        log.info("%s is whole and made from this asset and spec: nothing to do", " ".join(map(str, existing.paths)))
        return existing
    provenance = provenance or Provenance()
    provenance = replace(provenance, source=provenance.source or asset.path.name)
    with working_folder(out) as scratch:
        result, images = _render(asset, spec, planned, execution or Execution(), provenance, scratch, progress, worker)
        images = check_pictures(images, result, filters or Filters())
        paths = _commit(images, scratch / "orbits", out, spec)
    warnings = tuple(dict.fromkeys(warning for orbit in images for warning in orbit.renderer["warnings"]))
    for warning in warnings:
        log.warning("%s: %s", asset.path.name, warning)
    return RenderReport(
        paths, False, sum(len(item.orbit) for item in planned), warnings, time.monotonic() - started,
        float(result.done["cpu_s"]), int(result.done["peak_bytes"]),
    )  # fmt: skip


def find_whole(json_paths: tuple[Path, ...], key: str) -> RenderReport | None:
    """Return a report of orbits that are all there, validate, and were made from the same asset and spec."""
    found = []
    for json_path in json_paths:
        try:
            if not json_path.is_file():
                return None
            images = read_orbit(json_path)
        except OSError:  # a name that no file can have, a folder that may not be looked into: said when it is made
            return None
        except OrbitError as error:
            log.warning("rendering again: %s", error)
            return None
        if images.renderer.get("task_key") != key:
            log.warning("%s was made from another asset or spec: rendering again", json_path)
            return None
        found.append(images)
    warnings = tuple(dict.fromkeys(warning for images in found for warning in images.renderer.get("warnings", ())))
    return RenderReport(json_paths, True, sum(len(images.orbit) for images in found), warnings, 0.0, 0.0, 0)


def _render(
    asset: Asset, spec: RenderSpec, planned: tuple[PlannedOrbit, ...], execution: Execution, provenance: Provenance,
    scratch: Path, progress: Progress | None, worker: tuple[str, ...],
) -> tuple[JobResult, tuple[OrbitImages, ...]]:  # fmt: skip
    """One child for one job, and its pictures."""
    seed, key = task_seed(asset.sha256, spec), task_key(asset.sha256, spec)
    folder = scratch / "views"
    folder.mkdir()
    job = make_job(
        key, asset.path, asset.suffix, planned=planned, seed=seed, spec=spec, execution=execution, folder=folder
    )
    total, ready = sum(len(item.orbit) for item in planned), 0

    def count(event: Event) -> None:
        nonlocal ready
        if event["event"] == "view" and progress is not None:
            ready += 1
            progress(ready, total)

    with Blender(execution, scratch, command=worker) as blender:
        result = blender.run(job, on_event=count)
    try:
        return result, gather(
            asset.uid, provenance, spec, planned=planned, seed=seed, key=key, sha256=asset.sha256, result=result
        )
    except FarmError as error:
        raise FarmError(error.reason, f"{asset.path.name}: {error.args[0]}", error.detail, "converting") from error


# ------------------------------------------------------------------------------------------------ all or nothing
def _commit(images: tuple[OrbitImages, ...], staged: Path, out: Path, spec: RenderSpec) -> tuple[Path, ...]:
    """Write all orbits aside, then bring their pictures to `out`, and only then their jsons, which say that all is there.

    Raises:
        FarmError, TurntableError: the file system refused; no json of this call is in `out`.
    """
    samples = [f"{orbit.uid}.{orbit.orbit.name}" for orbit in images]
    try:
        jsons = [write_orbit(staged, orbit, quality=spec.quality) for orbit in images]
        _remove(out, samples)
        try:
            for picture in sorted(set(staged.iterdir()) - set(jsons)):
                picture.replace(out / picture.name)
            sync_folder(out)
            paths = tuple(path.replace(out / path.name) for path in jsons)
            sync_folder(out)
        except BaseException:  # Ctrl-C as well: orbits are whole or not there
            _remove(out, samples)
            raise
    except OSError as error:
        raise FarmError("write-failed", f"cannot write to {out}: {error.strerror}; make room or choose another "
                        "folder", stage="writing") from error  # fmt: skip
    return paths


def _remove(out: Path, samples: list[str]) -> None:
    """Remove orbits, jsons first; also pictures of a former write with more views or kinds."""
    for sample in samples:
        (out / f"{sample}.json").unlink(missing_ok=True)
    sync_folder(out)
    for path in list(out.iterdir()):
        if any(path.name.startswith(f"{s}.") and IMAGE.fullmatch(path.name.removeprefix(f"{s}.")) for s in samples):
            path.unlink(missing_ok=True)


@contextmanager
def working_folder(out: Path) -> Iterator[Path]:
    """Yield a folder of our own in `out`, gone afterwards; a folder `out` made for nothing goes too.

    Raises:
        FarmError: `out` cannot be made or written to.
    """
    made: list[Path] = []
    try:
        made += (folder for folder in (out, *out.parents) if not folder.exists())
        out.mkdir(parents=True, exist_ok=True)
        _clear_stale(out)
        prefix = f".{Owner.current().label}."
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
        owner = None if match is None else Owner.from_label(match["owner"])
        # nobody holds a lock here: of other machines nothing is known
        if owner is not None and owner.host == Owner.current().host and not owner.is_alive():
            log.info("removing %s, left by a killed run", folder)
            shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------ the result
def check_pictures(images: tuple[OrbitImages, ...], result: JobResult, filters: Filters) -> tuple[OrbitImages, ...]:
    """Return the pictures with what the farm's checks flag among their warnings.

    Raises:
        FarmError: they cannot be right, or the filters refuse them: with the farm's own reason and words.
    """
    verdict = examine(images, result.imported, filters)
    if verdict.refusal is not None:
        raise FarmError(verdict.refusal.reason, verdict.refusal.message, stage=verdict.refusal.stage)
    flags = [FLAGS[flag] for flag in verdict.flags if flag in FLAGS]
    return tuple(
        replace(orbit, renderer={**orbit.renderer, "warnings": [*orbit.renderer["warnings"], *flags]})
        for orbit in images
    )
