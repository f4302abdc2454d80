"""Threads of a command, whatever was imported before it; memory that is not fetched anew."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
LATE = """
import os
os.environ["NUMBA_NUM_THREADS"] = "1"
import numba
numba.njit(parallel=True)(lambda: 1)()
from engine.cli.running import set_threads
set_threads(2)
assert os.environ["OMP_NUM_THREADS"] == "2"
assert numba.njit(lambda x: x + 1)(2) == 3
"""
KEPT = """
import resource, sys
import numpy as np
from engine.cli.running import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def cost(times):
    before = faults()
    for _ in range(times):
        np.ones(4 << 20)
    return faults() - before
fresh = cost(4)
told = keep_freed_memory()
first, later = cost(1), cost(4)
assert told == (later < 0.1 * fresh), (told, fresh, first, later)
"""


def test_threads_may_be_said_again_where_numba_already_runs() -> None:
    """numba reads its variables before every compilation, and refuses another number of threads than it has."""
    done = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr


def test_freed_memory_is_used_again() -> None:
    """32 MB, four times: 8,192 pages each without, none with what glibc was told."""
    environment = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    command = [sys.executable, "-c", KEPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
