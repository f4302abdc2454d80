"""A sealing process that is killed at any moment: nothing half-made counts, and the next one ends at the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from render_farm.shards import build_manifest, list_receipts, open_output, verify
from tests.render_farm.staged import Ball, seal

BALLS = (Ball("apple"), Ball("bell"), Ball("cherry", shard="000-000001"), Ball("drum", shard="000-000001"))
PROGRAM = """
import sys
from pathlib import Path
from render_farm.shards import build_manifest, open_output
from tests.render_farm.shards.test_killed_sealer import BALLS
from tests.render_farm.staged import seal

out, staging = (Path(argument) for argument in sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
seal(open_output(out), staging, *BALLS)
build_manifest(open_output(out))
print("done", flush=True)
"""


def start(out: Path, staging: Path, repository: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), str(staging)], cwd=repository, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(repository)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_sealer_that_is_killed_at_any_moment(tmp_path: Path, repository: Path) -> None:
    pytest.importorskip("tests.render_farm.staged")
    process = start(tmp_path / "whole", tmp_path / "staging", repository)
    begun = time.monotonic()
    process.communicate("go\n", timeout=60)
    took_s = time.monotonic() - begun
    whole = content(tmp_path / "whole")
    assert len(whole) == 2 + 2 + 4
    states = set()
    for index, share in enumerate(np.linspace(0.02, 0.9, 12)):
        out = tmp_path / f"out{index}"
        process = start(out, tmp_path / f"staging{index}", repository)
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(share * took_s)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        sealed = list_receipts(open_output(out))
        states.add(sealed)
        kinds = {problem.kind for problem in verify(open_output(out))}
        assert kinds <= {
            "stray",
            "missing-manifest",
            "bad-manifest",
            "stale-manifest",
        }  # no receipt, tar or picture is bad
        for shard in sealed:
            assert (out / "receipts" / f"{shard}.json").read_bytes() == whole[f"receipts/{shard}.json"]
        seal(open_output(out), tmp_path / f"staging{index}", *BALLS)
        build_manifest(open_output(out))
        assert content(out) == whole  # no leftovers either
    assert len(states) >= 2  # it was killed at different points
