"""What commands that compute share: threads set before torch is imported, memory kept, progress bars, missing libraries."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from engine.errors import MissingDependencyError

if TYPE_CHECKING:
    from engine.reconstruct import Progress

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""Of glibc's malloc.h."""


@contextmanager
def needing(what: str, extras: str) -> Iterator[None]:
    """Turn a library that is not installed into an error that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{what} needs {error.name}: pip install 'turntable3d[{extras}]'; see `turntable doctor`"
        ) from error


def check_at_least_one(flag: str, value: int | None) -> None:
    """Raise ValueError for a flag's number below 1; None is one that was not given."""
    if value is not None and value < 1:
        raise ValueError(f"--{flag} must be at least 1, got {value}")


def set_threads(threads: int) -> None:
    """Say how many threads torch, numba and BLAS may have; before they are imported."""
    # Threads that spin while they wait slow the others down (torch and numba each have a pool); read at first import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "numba" not in sys.modules:  # it refuses another number once its threads run; `use_threads` takes fewer then
        os.environ["NUMBA_NUM_THREADS"] = str(threads)


def keep_freed_memory() -> bool:
    """Let glibc keep what tensors free; return whether it could be told (not on other systems than Linux with glibc).

    It gives blocks above some megabytes back to the kernel, and gets every page of the next tensor anew: on a CPU up to
    four tenths of a training step's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_TOP_PAD, 64 << 20)])


def silence_libraries() -> None:
    """Let diffusers and transformers say errors alone: their warnings are for those who write pipelines."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.set_verbosity_error()
        library.disable_progress_bar()


@contextmanager
def progress_bars(quiet: bool) -> Iterator["Progress"]:
    """One bar a stage on stderr: how far, how long still. Nothing without a terminal."""
    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int, words: str) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(desc=stage, total=total, disable=True if quiet else None, file=sys.stderr)
        bars[stage].set_postfix_str(words, refresh=False)
        bars[stage].update(done - bars[stage].n)

    with logging_redirect_tqdm():
        try:
            yield show
        finally:
            for bar in bars.values():
                bar.close()
