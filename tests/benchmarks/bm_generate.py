"""True-size networks with random weights: time, arithmetic and memory of a denoising step. Prints one JSON document.

    python tests/benchmarks/bm_generate.py [--repeats 10] [--only NAME ...] [--no-compile]

On CUDA every job runs in bfloat16: eagerly (the baseline), as a CUDA graph, and compiled; guidance's two branches are
one batch. MFU is the achieved share of the device's dense bfloat16 peak, counting matrix products, convolutions and
attention (facts: engine.multiview.footprint). Without CUDA nothing is timed: the plan says what each job needs, computed
on the meta device, and the time that it would take at the peak and at half of it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from engine.multiview.footprint import Footprint, footprint
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.sizes import RELEASED_VAE
from engine.splats.reconstructor import GaussianUNet
from engine.training.loop.speed import PEAKS, device_peak
from tests.benchmarks.machine import machine

PLANNED_FOR = "H100"
GIB = 2**30


@dataclass(frozen=True)
class Job:
    """One network and one call of it."""

    name: str
    """Short."""
    words: str
    """What it is."""
    build: Callable[[], nn.Module]
    """Makes the network, on the default device."""
    inputs: Mapping[str, tuple[int, ...]]
    """Arguments by name: their shapes."""
    steps: int
    """How often one generation calls it."""
    chunked: bool = False
    """Feed-forward layers work on one row of the batch at a time: less memory."""


def denoising(views: int, side: int, batch: int = 2, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """Latents and times of a step; batch 2 is guidance in one forward."""
    return {"latents": (batch, views, channels, side, side), "timestep": (batch,)}


def hi3d(side: int, concatenated: int, vector: int, batch: int = 2) -> dict[str, tuple[int, ...]]:
    """Arguments of Hi3D's U-Net."""
    return denoising(16, side, batch) | {
        "tokens": (batch, 1, 1024), "concatenated": (batch, 16, concatenated, side, side), "vector": (batch, vector)
    }  # fmt: skip


def refiner() -> OrbitVideoUNet:
    """Hi3D's second stage."""
    return OrbitVideoUNet(in_channels=17, projection_class_embeddings_input_dim=512)


class Decoder(nn.Module):
    """The VAE's decoder as a module with one argument."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = AutoencoderKL(**RELEASED_VAE)

    def forward(self, latents: Tensor) -> Tensor:
        """Decode."""
        return self.vae.decode(latents).sample


VIDEOMV = denoising(24, 32) | {"text": (2, 77, 1024), "cameras": (2, 24, 16)}
JOBS = (
    Job("videomv-text", "text-to-orbit U-Net, 24 views at 256 px, guidance batched", TextOrbitUNet, VIDEOMV, 50),
    Job("videomv-image", "image-to-orbit U-Net, 24 views at 256 px, guidance batched", ImageOrbitUNet,
        VIDEOMV | {"image_embedding": (2, 1, 1024), "image_latents": (2, 4, 32, 32)}, 50),
    Job("hi3d-1", "Hi3D's first stage, 16 views at 512 px, guidance batched", OrbitVideoUNet, hi3d(64, 4, 768), 25),
    Job("hi3d-2", "Hi3D's second stage, 16 views at 1024 px, guidance batched", refiner, hi3d(128, 13, 512), 25),
    Job("hi3d-2-small", "the same in little memory: branches apart, feed-forward layers in chunks", refiner,
        hi3d(128, 13, 512, batch=1), 50, chunked=True),
    Job("vae-24x256", "VAE decodes 24 views at 256 px in one go", Decoder, {"latents": (24, 4, 32, 32)}, 1),
    Job("vae-1x1024", "VAE decodes one view at 1024 px", Decoder, {"latents": (1, 4, 128, 128)}, 16),
    Job("lgm-big", "LGM: 4 views at 256 px to 65,536 Gaussians", GaussianUNet, {"inputs": (1, 4, 9, 256, 256)}, 1),
)  # fmt: skip


def plan(job: Job) -> tuple[Footprint, dict[str, Any]]:
    """Compute what a job needs, without a device."""
    with torch.device("meta"):
        network = job.build().to("meta", torch.bfloat16).eval()
        given = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in job.inputs.items()}
    _chunk(network, job)
    needs = footprint(network, lambda: network(**given))
    peak = PEAKS[PLANNED_FOR][0]
    return needs, {
        "parameters": needs.parameters,
        "tflop": needs.flop / 1e12,
        "weights_gib": needs.weight_bytes / GIB,
        "peak_activations_gib": needs.peak_activation_bytes / GIB,
        "milliseconds_at_peak": {PLANNED_FOR: 1e3 * needs.flop / peak, "at half of it": 2e3 * needs.flop / peak},
    }


def measure(job: Job, needs: Footprint, repeats: int, *, compiled: bool) -> dict[str, Any]:
    """Time a job on CUDA in its variants."""
    with torch.device("cuda"):
        torch.manual_seed(0)
        network = job.build().to("cuda", torch.bfloat16).eval().requires_grad_(False)
        given = {name: torch.randn(shape, dtype=torch.bfloat16) for name, shape in job.inputs.items()}
    _chunk(network, job)
    peak = device_peak(torch.device("cuda"), "bf16")
    variants: dict[str, Callable[[], Callable[[], Any]]] = {
        "eager": lambda: lambda: network(**given),
        "graphed": lambda: _graphed(network, given),
    }
    if compiled:
        variants["compiled"] = lambda: _compiled(network, given)
    found: dict[str, Any] = {}
    for name, prepare in variants.items():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        try:
            run = prepare()
            milliseconds = _milliseconds(run, repeats)
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:  # one variant's failure is a result, not the end
            found[name] = {"failed": str(error).splitlines()[0][:300]}
            continue
        tflops = needs.flop / milliseconds / 1e9
        found[name] = {
            "milliseconds": milliseconds,
            "tflops": tflops,
            "mfu": None if peak is None else 1e12 * tflops / peak,
            "peak_memory_gib": torch.cuda.max_memory_allocated() / GIB,
            "seconds_to_prepare_and_time": time.perf_counter() - start,
            "seconds_a_generation": job.steps * milliseconds / 1e3,
        }
        del run
    baseline = found["eager"].get("milliseconds")
    for variant in found.values():
        if baseline and "milliseconds" in variant:
            variant["speedup_over_eager"] = baseline / variant["milliseconds"]
    return found


def _chunk(network: nn.Module, job: Job) -> None:
    if job.chunked:
        network.enable_forward_chunking(1)  # type: ignore[operator]  # a method of diffusers' U-Nets


def _compiled(network: nn.Module, given: Mapping[str, Tensor]) -> Callable[[], Any]:
    made = torch.compile(network, mode="max-autotune-no-cudagraphs")
    made(**given)
    return _graphed(made, given)


def _graphed(network: Any, given: Mapping[str, Tensor]) -> Callable[[], Any]:
    """Capture a call: replaying it launches all kernels at once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            network(**given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        network(**given)
    return graph.replay


@torch.no_grad()
def _milliseconds(run: Callable[[], Any], repeats: int) -> float:
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def main() -> None:
    """Run what can be run and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--only", nargs="*", choices=[job.name for job in JOBS], default=[])
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = [job for job in JOBS if not arguments.only or job.name in arguments.only]
    result: dict[str, Any] = {
        "benchmark": "generate",
        **machine(device, os.cpu_count() or 1),
        "settings": vars(arguments),
        "measured": device == "cuda",
        "baseline": "eager",
        "jobs": {},
    }
    for job in jobs:
        sys.stderr.write(f"{job.name}: {job.words}\n")
        needs, planned = plan(job)
        entry: dict[str, Any] = {"what": job.words, "steps": job.steps, "plan": planned}
        if device == "cuda":
            entry["measured"] = measure(job, needs, arguments.repeats, compiled=not arguments.no_compile)
        result["jobs"][job.name] = entry
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
