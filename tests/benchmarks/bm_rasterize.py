"""Renderers against the torch oracle, forward and backward, in one run. Prints one JSON document.

    python tests/benchmarks/bm_rasterize.py [--gaussians 20000] [--size 256] [--repeats 5] [--threads 4]

The bar: on a CPU numba is at least 25 times faster forward and 50 times faster backward than plain torch. Medians of
`repeats` runs after a warm-up; the renderers take turns, so that a busy machine is busy for all of them.
"""

import argparse
import json
import os
import statistics
import sys
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numba
import torch

from engine.geometry import RING24
from engine.splats import Gaussians, Rendering, render
from engine.splats.rendering import Backend
from tests.benchmarks.machine import machine


def shell(n: int, device: str) -> Gaussians:
    """Coloured splats on a thick shell, the size that a fit of an object ends with."""
    g = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    gaussians = Gaussians(
        0.4 * directions + 0.02 * torch.randn(n, 3, generator=g),
        0.4 * torch.randn(n, 3, generator=g) - 4.6,
        torch.randn(n, 4, generator=g),
        1.5 * torch.randn(n, generator=g) + 1,
        0.3 * torch.randn(n, 1, 3, generator=g),
    )
    return gaussians.to(device)


def seconds(gaussians: Gaussians, size: int, backend: Backend) -> tuple[float, float, Rendering]:
    """Time one forward and one backward pass of a view with all outputs."""
    leaves = Gaussians(*(tensor.clone().requires_grad_() for tensor in gaussians.tensors))
    camera = RING24.orbit(15.0, size, size).camera(3)
    _wait(gaussians)
    start = time.perf_counter()
    made = render(leaves, [camera], backend=backend)
    _wait(gaussians)
    middle = time.perf_counter()
    loss = made.colour.square().sum() + made.alpha.sum() + made.depth_m.sum() + made.normal.square().sum()
    loss.backward()
    _wait(gaussians)
    return middle - start, time.perf_counter() - middle, made


def _wait(gaussians: Gaussians) -> None:
    if gaussians.means.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gaussians", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backends: tuple[Backend, ...] = ("gsplat", "torch") if device == "cuda" else ("numba", "torch")
    gaussians = shell(arguments.gaussians, device)
    times: dict[str, list[tuple[float, float]]] = {backend: [] for backend in backends}
    pictures = {}
    for repeat in range(arguments.repeats + 1):  # the first is the warm-up
        for backend in backends:
            forward, backward, pictures[backend] = seconds(gaussians, arguments.size, backend)
            if repeat:
                times[backend].append((forward, backward))
    medians = {name: [statistics.median(t[k] for t in runs) for k in range(2)] for name, runs in times.items()}
    fast, oracle = backends
    result = {
        "benchmark": "rasterize",
        **machine(device, arguments.threads),
        "settings": vars(arguments),
        "milliseconds": {n: {"forward": 1e3 * f, "backward": 1e3 * b} for n, (f, b) in medians.items()},
        "speedup": {
            "of": fast,
            "over": oracle,
            "forward": medians[oracle][0] / medians[fast][0],
            "backward": medians[oracle][1] / medians[fast][1],
        },
        "largest_difference": float((pictures[fast].colour - pictures[oracle].colour).abs().max().detach()),
    }
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
