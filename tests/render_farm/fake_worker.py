"""A worker without Blender: ``python fake_worker.py BEHAVIOUR JOB.json``. Speaks the protocol, and fails on cue."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import OpenEXR

SLEEP_S = 600
behaviour, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())


def send(event: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


def write_view(path: str, opaque: bool) -> None:
    """A blue disc, 2 m away."""
    h, w = job["height"], job["width"]
    y, x = np.mgrid[:h, :w]
    disc = ((x - w / 2) ** 2 + (y - h / 2) ** 2 < (h / 4) ** 2) & opaque
    one, none = disc.astype(np.float32), np.zeros((h, w), np.float32)
    channels = {
        "V.Combined.R": none, "V.Combined.G": none, "V.Combined.B": one, "V.Combined.A": one,
        "V.Depth.Z": np.where(disc, 2.0, 1e10).astype(np.float32), "V.Normal.X": none, "V.Normal.Y": -one,
        "V.Normal.Z": none, "V.BaseColour.R": none, "V.BaseColour.G": none, "V.BaseColour.B": one,
        "V.BaseWeight.X": one,
    }  # fmt: skip
    channels |= {f"V.{layer}.{c}": none for layer in ("DiffCol", "GlossCol") for c in "RGB"}
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, channels).write(path)


def hang(with_child: bool = False) -> None:
    if with_child:
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({SLEEP_S})"])
        Path(os.environ["FAKE_WORKER_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(SLEEP_S)


if behaviour == "hang-at-start":
    hang(with_child=True)
sys.stderr.write("line of chatter\n" * 20000)  # more than a pipe holds
sys.stdout.write("Blender says hello on stdout\n[1, 2]\n")
send("hello", blender="0.0 fake", device="CPU")
if behaviour == "hang-in-import":
    hang(with_child=True)
if behaviour == "refuse":
    send("error", reason="no-triangles", message="it holds no triangles")
    sys.exit(1)
if behaviour == "leave":
    sys.stderr.write("last words\n")
    sys.exit(3)
send("imported", scale=0.5, centre=[1.0, 2.0, 3.0], triangles=12, objects=1, warnings=["texture 'a.png' is missing"])
for view in job["views"]:
    if view["index"] == 3:
        if behaviour == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if behaviour == "out-of-memory":
            os.kill(os.getpid(), signal.SIGKILL)
        if behaviour == "hang-in-view":
            hang(with_child=True)
    if behaviour == "cut-picture" and view["index"] == 2:
        Path(view["path"]).write_bytes(b"\x76\x2f\x31\x01 cut off")
    else:
        write_view(view["path"], opaque=behaviour != "blank")
    send("view", index=view["index"], path=view["path"], seconds=0.0)
send("done", cpu_seconds=1.5, peak_bytes=2**20)
if behaviour == "hang-at-exit":
    hang(with_child=True)
