"""The render farm against a plain script: PSNR over CPU-seconds and wall time, in one run. Prints one JSON document.

    python tests/benchmarks/bm_farm.py [--objects FOLDER] [--most 4] [--size 256] [--views 4] [--workers 4]

    references  512 samples, no denoiser, another noise seed, through the farm's worker   (for both sides)
    farm        N long-lived workers of 1 thread, all passes; `render_farm.blender.Blender`, then `gather`
    plain       plain_render.py: a process for each object, N threads, one render call a view, RGBA alone

The plain script's light paths and pixel filter are Blender's defaults, which are the farm's too but for 64 instead of 8
transparent layers, so that one reference serves both. PSNR compares what each side stores, 8-bit sRGB, composited over
mid grey, pooled over an object's views; figures are means over objects in dB. The farm's `fixed` seconds of an object are
those of a job less its views, and its share of a worker's start, which serves OBJECTS_PER_START objects; its `store`
seconds are the conversion and the writing of all passes, which the plain script does not even have.

By default a worker sees one view of each object, which so carries what later views would be spared: figures of the farm
are on the safe side.

The bar: at least 5 times more objects an hour at 36 dB or better, at least 2.5 times at the plain script's own PSNR.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from engine.files import write_orbit
from engine.geometry import Orbit, frames
from render_farm.assets import Asset, load_asset
from render_farm.blender import Blender, JobResult
from render_farm.cameras import PlannedOrbit, plan_orbits
from render_farm.example import make_example
from render_farm.gather import gather, make_job
from render_farm.process import child_environment
from render_farm.records import Provenance
from render_farm.spec import CameraSpec, Denoise, Execution, RenderSpec
from tests.benchmarks.machine import machine

HERE = Path(__file__).parent
RING_VIEWS = 24
"""Of a whole object; objects an hour are stated for these."""
OBJECTS_PER_START = 50
ELEVATION_DEG = 20.0
REFERENCE = ("none", 512)
FARM: tuple[tuple[Denoise, int], ...] = (
    ("fast", 8), ("fast", 16), ("fast", 32), ("fast", 64), ("fast", 128), ("fast", 256), ("none", 64),
)  # fmt: skip
PLAIN = (16, 32, 128)
"""Samples; the last is what people use."""
GOOD_DB = 36.0
BACKGROUNDS = {"grey": 128.0, "white": 255.0, "black": 0.0}
Pictures = dict[str, np.ndarray]
"""RGBA [views, h, w, 4] of each object, 8 bit."""


@dataclass(frozen=True)
class Bench:
    """What is rendered, and where."""

    assets: tuple[Asset, ...]
    """The objects."""
    orbit: Orbit
    """The views that are measured."""
    workers: int
    """The farm's processes, the plain script's threads."""
    folder: Path
    """For everything."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one setting; means over objects."""

    fixed: float
    """Of an object, whatever its number of views."""
    view: float
    """Of a view."""

    def of_object(self, views: int = RING_VIEWS) -> float:
        """Seconds of an object with so many views."""
        return self.fixed + views * self.view


# ------------------------------------------------------------------------------------------------ the farm
def farm(bench: Bench, spec: RenderSpec) -> tuple[Pictures, dict[str, Any]]:
    """Render all objects: each worker its share of every object's views, so that all are busy all the time."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder, ThreadPoolExecutor(bench.workers) as pool:
        shares = pool.map(lambda k: _share(bench, spec, k, Path(folder) / str(k)), range(bench.workers))
        starts, shares_done = zip(*shares, strict=True)
        pictures, store = _gather(bench, spec, shares_done, Path(folder))
    results = [result for share in shares_done for _, result in share]
    cpu, wall = _farm_cost(results, starts)
    cpu = replace(cpu, view=cpu.view + store)
    wall = replace(wall, view=wall.view + store)  # another process's time, but the same cores'
    return pictures, {
        "settings": {"samples": spec.samples, "denoise": spec.denoise, "passes": spec.passes},
        "cpu_s": {"view": cpu.view, "object_fixed": cpu.fixed, "object": cpu.of_object(), "of_it_store_a_view": store},
        "wall_s": {"view": wall.view / bench.workers, "object": wall.of_object() / bench.workers},
        "objects_per_hour": 3600 * bench.workers / wall.of_object(),
    }


Share = list[tuple[Asset, JobResult]]


def _share(bench: Bench, spec: RenderSpec, worker: int, folder: Path) -> tuple[tuple[float, float], Share]:
    """One worker's jobs: an unmeasured one that starts Blender, then its views of every object."""
    execution = Execution(threads=1)
    done: Share = []
    with Blender(execution, folder / "scratch") as blender:
        begun = time.monotonic()
        small = replace(spec, samples=1, denoise="none", passes=())
        first = blender.run(_job(bench, small, bench.assets[0], worker, folder / "start", execution))
        stages = first.done["stages"]
        start_s = time.monotonic() - begun - sum(stages.values())
        for turn in range(len(bench.assets)):  # each begins with another object, so that none waits for a heavy one
            asset = bench.assets[(turn + worker) % len(bench.assets)]
            done.append((asset, blender.run(_job(bench, spec, asset, worker, folder / asset.uid, execution))))
    return (start_s, start_s), done  # starting is one thread's work: CPU as wall


def _planned(bench: Bench, worker: int) -> tuple[PlannedOrbit, ...]:
    return (PlannedOrbit(bench.orbit.subset(_views(bench, worker)), {"kind": "uniform", "strength": 1.0}),)


def _views(bench: Bench, worker: int) -> list[int]:
    return list(range(worker, len(bench.orbit), bench.workers))


def _job(bench: Bench, spec: RenderSpec, asset: Asset, worker: int, folder: Path, execution: Execution) -> Any:
    folder.mkdir(parents=True)
    return make_job(
        asset.uid, asset.path, asset.suffix, planned=_planned(bench, worker), seed=spec.seed or 0, spec=spec,
        execution=execution, folder=folder,
    )  # fmt: skip


def _farm_cost(results: Sequence[JobResult], starts: Sequence[tuple[float, float]]) -> tuple[Cost, Cost]:
    """CPU and wall seconds of one worker. A job's CPU-seconds belong to its stages as its wall seconds do."""
    costs = []
    for cpu in (True, False):
        fixed, views = [], []
        for result in results:
            inside = sum(result.done["stages"].values())
            whole = float(result.done["cpu_s"]) if cpu else result.wall_s
            rendering = result.render_s + result.write_s
            views.append(rendering * (whole / inside if cpu else 1.0) / sum(len(v) for v in result.views.values()))
            fixed.append(whole - views[-1] * sum(len(v) for v in result.views.values()))
        start = statistics.mean(start[0 if cpu else 1] for start in starts) / OBJECTS_PER_START
        costs.append(Cost(statistics.mean(fixed) + start, statistics.mean(views)))
    return costs[0], costs[1]


def _gather(bench: Bench, spec: RenderSpec, shares: Sequence[Share], folder: Path) -> tuple[Pictures, float]:
    """Read what the workers wrote and store it as orbits; also the CPU-seconds that this takes for a view."""
    pictures = {asset.uid: np.zeros((len(bench.orbit), spec.height, spec.width, 4), np.uint8) for asset in bench.assets}
    cpu_s = time.thread_time()
    for worker, share in enumerate(shares):
        for asset, result in share:
            (images,) = gather(
                asset.uid, Provenance(), spec, planned=_planned(bench, worker), seed=spec.seed or 0, key=asset.uid,
                sha256=asset.sha256, result=result,
            )  # fmt: skip
            write_orbit(folder / "orbits", images, quality=spec.quality)
            pictures[asset.uid][_views(bench, worker)] = images.rgba
    return pictures, (time.thread_time() - cpu_s) / (len(bench.assets) * len(bench.orbit))


# ------------------------------------------------------------------------------------------------ the plain script
def plain(bench: Bench, size: int, samples: int) -> tuple[Pictures, dict[str, Any]]:
    """Render all objects, one process after the other."""
    pictures, views, objects = {}, [], []
    for asset in bench.assets:
        with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
            job = {
                "object": str(asset.path), "out": folder, "size": size, "samples": samples, "threads": bench.workers,
                "fov_deg": bench.orbit.fov_deg, "poses": frames.to_blender(bench.orbit.T_world_camera).tolist(),
            }  # fmt: skip
            (Path(folder) / "job.json").write_text(json.dumps(job))
            objects.append(_run_plain(Path(folder), bench.workers))
            views.append(json.loads((Path(folder) / "times.json").read_text()))
            files = [Path(folder) / f"{index:02d}.png" for index in range(len(bench.orbit))]
            pictures[asset.uid] = np.stack([np.asarray(Image.open(file)) for file in files])
    costs = {}
    for name in ("cpu_s", "wall_s"):
        seconds = [sum(view[name] for view in object_views) for object_views in views]
        fixed = statistics.mean(whole[name] - inside for whole, inside in zip(objects, seconds, strict=True))
        costs[name] = Cost(fixed, statistics.mean(seconds) / len(bench.orbit))
    return pictures, {
        "settings": {"samples": samples, "denoise": "Blender's default", "passes": []},
        **{
            name: {"view": cost.view, "object_fixed": cost.fixed, "object": cost.of_object()}
            for name, cost in costs.items()
        },
        "objects_per_hour": 3600 / costs["wall_s"].of_object(),
    }


def _run_plain(folder: Path, threads: int) -> dict[str, float]:
    """Run the script; the wall and CPU seconds of its whole process."""
    begun = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        child = subprocess.Popen(
            [sys.executable, str(HERE / "plain_render.py"), str(folder / "job.json")], stdout=log, stderr=log,
            env=child_environment(folder, threads),
        )  # fmt: skip
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"plain_render.py ended with {child.returncode}: {(folder / 'log.txt').read_text()[-2000:]}")
    return {"wall_s": time.monotonic() - begun, "cpu_s": usage.ru_utime + usage.ru_stime}


# ------------------------------------------------------------------------------------------------ comparing
def quality(pictures: Pictures, references: Pictures) -> dict[str, Any]:
    """PSNR over each background and of alpha: the mean over objects, and the worst object's over grey."""
    found: dict[str, Any] = {}
    for name, background in BACKGROUNDS.items():
        found[f"psnr_{name}_db"] = [
            _psnr(_over(pictures[uid], background), _over(references[uid], background)) for uid in references
        ]
    found["psnr_alpha_db"] = [_psnr(pictures[uid][..., 3], references[uid][..., 3]) for uid in references]
    worst = {"worst_object_db": min(found["psnr_grey_db"]), "objects_db": found["psnr_grey_db"]}
    return {name: statistics.mean(values) for name, values in found.items()} | worst


def _over(rgba: np.ndarray, background: float) -> np.ndarray:
    alpha = rgba[..., 3:] / 255.0
    return rgba[..., :3] * alpha + background * (1 - alpha)


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean(np.square(a.astype(np.float64) - b))
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


def compare(farm_points: list[dict[str, Any]], plain_points: list[dict[str, Any]]) -> dict[str, Any]:
    """How many times cheaper the farm is than the plain script at its usual setting, and at equal PSNR."""
    usual = plain_points[-1]
    good = [p for p in farm_points if p["worst_object_db"] >= GOOD_DB]
    best = max(good, key=lambda point: point["objects_per_hour"]) if good else None
    return {
        "at_36_db_or_better": None if best is None else {"farm": best["settings"], **_ratios(best, usual)},
        "at_equal_psnr": [
            {"plain": point["settings"], "psnr_db": point["psnr_grey_db"], **_at_psnr(farm_points, point)}
            for point in plain_points
        ],
    }


def _ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    return {
        "objects_per_hour": ours["objects_per_hour"] / theirs["objects_per_hour"],
        "cpu_s_an_object": theirs["cpu_s"]["object"] / ours["cpu_s"]["object"],
    }


def _at_psnr(points: list[dict[str, Any]], theirs: dict[str, Any]) -> dict[str, Any]:
    """Interpolate the farm's curve, log seconds over dB, at the plain script's PSNR; never extrapolate upwards."""
    curve = [point for point in points if point["settings"]["denoise"] == "fast"]
    curve.sort(key=lambda point: point["psnr_grey_db"])
    db = [point["psnr_grey_db"] for point in curve]
    if theirs["psnr_grey_db"] > db[-1]:
        return {"note": f"above the farm's curve, which ends at {db[-1]:.2f} dB"}

    def seconds(of: Any) -> float:
        return float(np.exp(np.interp(theirs["psnr_grey_db"], db, [np.log(of(point)) for point in curve])))

    return {
        "objects_per_hour": 1 / seconds(lambda p: 1 / p["objects_per_hour"]) / theirs["objects_per_hour"],
        "cpu_s_an_object": theirs["cpu_s"]["object"] / seconds(lambda p: p["cpu_s"]["object"]),
    }


# ------------------------------------------------------------------------------------------------ the run
def find_objects(folder: Path | None, most: int, scratch: Path) -> tuple[Asset, ...]:
    """The folder's objects, evenly picked, or the project's own example and three more that Blender makes."""
    if folder is None:
        make_example(scratch / "lighthouse.glb")
        with (scratch / "objects.log").open("w") as log:
            subprocess.run(
                [sys.executable, str(HERE / "make_objects.py"), str(scratch)], check=True, stdout=log, stderr=log,
                env=child_environment(scratch, 1),
            )  # fmt: skip
        folder = scratch
    found = sorted(folder.glob("*.glb"))
    if not found:
        raise SystemExit(f"{folder} holds no .glb")
    picked = found if len(found) <= most else [found[i * len(found) // most] for i in range(most)]
    return tuple(load_asset(path.resolve()) for path in picked)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=Path, help="a folder of .glb; the project's own objects by default")
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--views", type=int, default=4, help="of the 24 of an object")
    parser.add_argument("--workers", type=int, default=min(4, os.cpu_count() or 1))
    arguments = parser.parse_args()
    spec = RenderSpec(
        cameras=CameraSpec(elevation_deg=ELEVATION_DEG), width=arguments.size, height=arguments.size, seed=0
    )
    ring = plan_orbits(0, spec)[0].orbit
    chosen = [i * RING_VIEWS // arguments.views for i in range(arguments.views)]
    with tempfile.TemporaryDirectory(prefix="bm_farm.") as folder:
        before = machine("cpu", arguments.workers)
        assets = find_objects(arguments.objects, arguments.most, Path(folder))
        bench = Bench(assets, ring.subset(chosen), arguments.workers, Path(folder))
        references, _ = farm(bench, replace(spec, samples=REFERENCE[1], denoise=REFERENCE[0], passes=(), seed=1))
        farm_points, plain_points = [], []
        for denoise, samples in FARM:
            pictures, point = farm(bench, replace(spec, samples=samples, denoise=denoise))
            farm_points.append(point | quality(pictures, references))
        for samples in PLAIN:
            pictures, point = plain(bench, arguments.size, samples)
            plain_points.append(point | quality(pictures, references))
    result = {
        "benchmark": "farm",
        **before,
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(arguments).items()},
        "objects": [asset.path.name for asset in assets],
        "farm": farm_points,
        "plain": plain_points,
        "times_better": compare(farm_points, plain_points),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
