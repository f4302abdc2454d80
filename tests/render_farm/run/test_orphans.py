"""What a killed farm's Blenders had started is ended by the next one, and nobody else's processes are."""

import subprocess
import sys
import time
from pathlib import Path

from render_farm.run.orphans import end_orphans

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]


def start(temporary: Path) -> "subprocess.Popen[bytes]":
    child = subprocess.Popen(SLEEP, env={"TMPDIR": str(temporary)}, start_new_session=True)
    until = time.monotonic() + 5
    while b"TMPDIR" not in Path(f"/proc/{child.pid}/environ").read_bytes() and time.monotonic() < until:
        time.sleep(0.01)  # between fork and exec it still has ours
    return child


def test_only_processes_with_their_files_in_the_folder_are_ended(tmp_path):
    mine, deep, beside = start(tmp_path / "farm"), start(tmp_path / "farm" / "slot-0" / "x"), start(tmp_path / "farm-2")
    try:
        assert end_orphans(tmp_path / "farm") == 2
        assert (mine.wait(5), deep.wait(5)) == (-9, -9)
        assert beside.poll() is None
        assert end_orphans(tmp_path / "farm") == 0
    finally:
        for child in (mine, deep, beside):
            child.kill()
            child.wait()
