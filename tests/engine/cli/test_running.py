"""Threads of a command, whatever was imported before it."""

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


def test_threads_may_be_said_again_where_numba_already_runs() -> None:
    """numba reads its variables before every compilation, and refuses another number of threads than it has."""
    done = subprocess.run([sys.executable, "-c", LATE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
