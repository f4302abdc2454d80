"""Seconds and peak memory of a piece of work: this process and its children."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

SAMPLE_SECONDS = 0.1
MEBIBYTE = 2**20


@dataclass
class Cost:
    """What a piece of work took; filled when it ends."""

    seconds: float = 0.0
    """Wall time."""
    peak_memory_mib: float = 0.0
    """Largest resident memory of this process and its children together, sampled ten times a second."""


def resident_mib() -> float:
    """Return the resident memory of this process and its children, MiB."""
    process = psutil.Process()
    total = process.memory_info().rss
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it may have ended since the listing
            total += child.memory_info().rss
    return total / MEBIBYTE


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure the block: `with measured() as cost: ...`."""
    cost, done = Cost(peak_memory_mib=resident_mib()), threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            cost.peak_memory_mib = max(cost.peak_memory_mib, resident_mib())

    sampler = threading.Thread(target=sample, daemon=True)
    start = time.perf_counter()
    sampler.start()
    try:
        yield cost
    finally:
        done.set()
        sampler.join()
        cost.seconds = time.perf_counter() - start
        cost.peak_memory_mib = max(cost.peak_memory_mib, resident_mib())
