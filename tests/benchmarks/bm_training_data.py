"""How many clips one process makes of stored orbits. Prints one JSON document.

    python tests/benchmarks/bm_training_data.py [--shards PATTERN] [--samples 40] [--repeats 5] [--workers 0]

Without --shards it makes an orbit shard of its own (ball orbits at 128 px, lossless). `decoding` is the floor: the views'
WebPs alone. Medians of `repeats` runs after a warm-up; samples are orbits, of as many views as they have.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from engine.files import write_shard
from engine.files.images import decode_webp
from engine.training.data.batches import loader
from engine.training.data.clips import OrbitMembers
from engine.training.data.sources import Shards, find_shards
from engine.training.data.stream import RawSample, Walk
from engine.training.plans import DataPlan
from tests.benchmarks.machine import machine
from tests.engine.balls import ball_orbit

SIZE = 128


def plans(orbit: str, views: int, size: int) -> dict[str, DataPlan]:
    """What is measured, plain to costly."""
    plain = DataPlan(orbit=orbit, views=views, size_px=size)
    varied = replace(plain, mirror=0.5, colour=0.5, background="random", rebase=True)
    return {
        "plain": plain,
        "varied": varied,
        "varied, half size": replace(varied, size_px=size // 2),
        "varied, three quarters": replace(varied, size_px=3 * size // 4),
        "four views": replace(plain, views=4),
        "degraded": replace(plain, degrade=True),
    }


def own_shard(folder: Path) -> Shards:
    """A few balls of several elevations."""
    balls = [replace(ball_orbit(SIZE, 24, 5.0 + 4 * n), uid=f"ball-{n}") for n in range(4)]
    write_shard(folder / "balls.tar", balls)
    return find_shards([str(folder)])


def decode(sample: RawSample) -> None:
    """All views of a sample."""
    for name, data in sample.parts.items():
        if "rgba_" in name:
            decode_webp(data)


def seconds(shards: Shards, plan: DataPlan, samples: int, workers: int) -> float:
    """Time of a clip, behind the first few."""
    batches = iter(loader(plan, shards, batch_size=1, seed=0, workers=workers))
    for _ in islice(batches, 3 + 4 * workers):
        pass
    start = time.perf_counter()
    for _ in islice(batches, samples):
        pass
    return (time.perf_counter() - start) / samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shards = find_shards([arguments.shards]) if arguments.shards else own_shard(Path(folder))
        raw = [s.raw for s in islice(Walk(shards, OrbitMembers("*", False), 0).steps(), 16)]
        document = json.loads(raw[0].parts[f"{raw[0].name}.json"])
        views, size = len(document["azimuth_deg"]), int(document["width"])
        times: dict[str, list[float]] = {"decoding": []}
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            for sample in raw:
                decode(sample)
            times["decoding"].append((time.perf_counter() - start) / len(raw))
            for name, plan in plans(document["orbit"], views, size).items():
                times.setdefault(name, []).append(seconds(shards, plan, arguments.samples, arguments.workers))
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    result = {
        "benchmark": "training_data",
        **machine("cpu", 1),
        "settings": vars(arguments),
        "views": views,
        "size_px": size,
        "milliseconds_per_sample": {name: round(1e3 * median, 2) for name, median in medians.items()},
        "samples_per_second": {name: round(1 / median, 1) for name, median in medians.items()},
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
