"""Training steps of the true-size recipes with random weights: clips a second, MFU, peak memory. Prints one JSON document.

    python tests/benchmarks/bm_training.py [--steps 8] [--only RECIPE ...]

On CUDA a step is forward, backward and AdamW by the recipe's own loop on clips of random numbers, in the recipe's
precision, with gradient checkpointing (the baseline) and without it where that fits; the reconstructor needs gsplat. From
VideoMV's clips a second follow the GPU hours of its text fine-tune (the paper: 4 on A100s). Without CUDA nothing is timed:
the plan says what each recipe needs, computed on the meta device.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat
from typing import Any

import torch

from engine.training.loop.estimate import estimate
from engine.training.loop.meta import imagined_batch
from engine.training.loop.run import prepare
from engine.training.loop.settings import LoopSettings
from engine.training.loop.speed import BACKWARD, count_forward, device_peak
from engine.training.loop.state import Progress
from engine.training.loop.steps import Setup, Steps, on_device
from engine.training.plans import Recipe
from engine.training.recipes import RECIPES
from engine.training.tasks.build import make_task
from engine.training.types import Batch, Task
from tests.benchmarks.machine import machine

CLIPS = {
    "videomv-text": 8, "videomv-image": 8, "videomv-2d-joint": 8, "reconstructor": 2, "hi3d-base": 2, "hi3d-refiner": 1,
    "vae": 3, "depth": 4,
}  # fmt: skip
"""A micro-batch: the release's 8 for VideoMV, what fits 80 GB by the plan for the others."""
TEXT_CLIPS = 28_000
"""One pass over the paper's text data."""
GIB = 2**30


def chosen(names: list[str]) -> list[Recipe]:
    """Return the full recipes, cut to one micro-batch a step."""
    full = [recipe for (_, size), recipe in RECIPES.items() if size == "full"]
    return [
        replace(recipe, optimisation=replace(recipe.optimisation, batch_size=CLIPS[recipe.name]))
        for recipe in full
        if not names or recipe.name in names
    ]


def task_of(recipe: Recipe) -> Task:
    """Make a recipe's task with random weights."""
    return make_task(recipe, fresh=True)


def plan(recipe: Recipe) -> dict[str, Any]:
    """Compute what a recipe needs, without a device."""
    made = estimate(lambda: task_of(recipe), recipe, LoopSettings(precision=recipe.optimisation.precision))
    flop = made.forward_flop
    return {
        "trained_parameters": made.trained_parameters,
        "tflop_a_clip": None if flop is None else BACKWARD * flop / 1e12,
        "memory_gib": None if made.bytes is None else made.bytes / GIB,
        "activations_gib": None if made.activation_bytes is None else made.activation_bytes / GIB,
        "activations_from": made.activations_from,
    }


def noise(recipe: Recipe) -> Iterator[Batch]:
    """Yield the same clips of random numbers again and again: what they show does not change the arithmetic."""
    batch = imagined_batch(recipe.data, CLIPS[recipe.name], "cpu")
    filled = {
        name: torch.rand(value.shape) for name in ("pixels", "alpha", "depth_m", "degraded", "backgrounds")
        if isinstance(value := getattr(batch, name), torch.Tensor)
    }  # fmt: skip
    return repeat(replace(batch, **filled))


def measure(recipe: Recipe, count: int) -> dict[str, Any]:
    """Time a recipe's steps on CUDA, with gradient checkpointing and without."""
    found: dict[str, Any] = {}
    for name, twice in (("checkpointed", True), ("plain", False)):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        changed = replace(recipe, optimisation=replace(recipe.optimisation, gradient_checkpointing=twice))
        try:
            found[name] = timed(changed, count)
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:  # one variant's failure is a result, not the end
            found[name] = {"failed": str(error).splitlines()[0][:300]}
    baseline = found["checkpointed"].get("clips_a_second")
    for variant in found.values():
        if baseline and "clips_a_second" in variant:
            variant["speedup_over_checkpointed"] = variant["clips_a_second"] / baseline
    return found


def timed(recipe: Recipe, count: int) -> dict[str, Any]:
    """Return the median of some steps after two to warm up."""
    setup, _ = prepare(task_of(recipe), recipe, LoopSettings())
    batches = noise(recipe)
    steps, progress, began = Steps(setup, batches), Progress(), time.perf_counter()
    seconds = []
    for _ in range(2 + count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        steps.take(progress, began=began, told=lambda: False, parts=False)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    clips = CLIPS[recipe.name] / statistics.median(seconds[2:])
    return {
        "clips": CLIPS[recipe.name],
        "seconds_a_step": statistics.median(seconds[2:]),
        "clips_a_second": clips,
        "mfu": share_of_peak(setup, next(batches), clips),
        "peak_memory_gib": torch.cuda.max_memory_allocated() / GIB,
        **({"gpu_hours_for_28000_clips": TEXT_CLIPS / clips / 3600} if recipe.name == "videomv-text" else {}),
    }


def share_of_peak(setup: Setup, batch: Batch, clips_a_second: float) -> float | None:
    """Return the trained network's share of the device's peak."""
    peak = device_peak(setup.accelerator.device, setup.accelerator.mixed_precision)
    if peak is None:
        return None
    here = on_device(batch, setup.accelerator.device)
    flop = count_forward(setup.student, lambda student: setup.task.loss(student, here, share=0.0))
    return BACKWARD * flop / CLIPS[setup.recipe.name] * clips_a_second / peak


def main() -> None:
    """Run what can be run and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=list(CLIPS), default=[])
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    result: dict[str, Any] = {
        "benchmark": "training",
        **machine(device, os.cpu_count() or 1),
        "settings": vars(arguments),
        "measured": device == "cuda",
        "baseline": "checkpointed",
        "recipes": {},
    }
    for recipe in chosen(arguments.only):
        sys.stderr.write(f"{recipe.name}: {recipe.summary}\n")
        entry: dict[str, Any] = {"what": recipe.summary, "clips": CLIPS[recipe.name], "plan": plan(recipe)}
        if device == "cuda":
            entry["measured"] = measure(recipe, arguments.steps)
        result["recipes"][recipe.name] = entry
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
