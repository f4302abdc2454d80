"""A worker without Blender: ``python fake_worker.py [BEHAVIOUR]``. Speaks the protocol of job.py, and fails on cue.

It photographs a ball of radius 0.4 at the origin with the job's own cameras, so that depth, normals and silhouettes agree
between views; the pattern on it is drawn from the asset's bytes, so that no two objects look alike.

What it does with an object is looked up, in this order:
    FAKE_WORKER_TABLE       JSON of asset file name to BEHAVIOUR; 'segfault,well': the first attempt, then the second...
    BEHAVIOUR               of the command line; 'well' by default
and besides:
    FAKE_WORKER_ATTEMPTS    a folder, needed for attempts to be counted across processes
    FAKE_WORKER_PIDS        a file to which every process that is started here adds its pid
    FAKE_WORKER_VIEW_S      seconds that each view takes

Behaviours
    before hello    hang-at-start, leave-at-start (from the command line only)
    importing       hang-in-import, segfault-in-import, leave (status 3), refuse, refuse:REASON, leak, fill-disk
    view 3          hang-in-view (its heart beats), silent (it does not), segfault, out-of-memory (SIGKILL),
                    grandchildren (two, one in a session of its own; then it hangs)
    pictures        blank, cut-picture, wrong-size
    talk            flood, flood-without-newlines (8 MB on stderr), garbage (on stdout), wrong-key, unknown-event,
                    extra-view
    after done      hang-between-jobs, die-between-jobs, hang-at-exit, leave-grandchildren
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import OpenEXR

SLEEP_S, HEARTBEAT_S, FAIL_AT = 600, 0.1, 3
RADIUS_M = 0.4
MIB = 2**20
FACTS = {
    "scale": 0.5, "centre": [1.0, 2.0, 3.0], "triangles": 12, "objects": 1, "instances": False, "animated": False,
    "skinned": False, "frame": 1, "frames": [1, 1], "pose": "frame", "lights_dropped": 0, "cameras_dropped": 0,
    "materials": 1, "images": 1, "largest_image_px": 64, "textures_resized": 0, "transparent": False, "textured": "image",
    "base_colours": 1, "device": "CPU", "warnings": ["texture 'a.png' is missing"],
}  # fmt: skip
talking = threading.Lock()
heart_beats = threading.Event()


def send(event: str, **fields: object) -> None:
    with talking:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()


def beat() -> None:
    while True:
        time.sleep(HEARTBEAT_S)
        if heart_beats.is_set():
            send("heartbeat", stage="rendering", rss_bytes=1)


# ------------------------------------------------------------------------------------------------ misbehaviour
def note_pid(pid: int) -> None:
    if "FAKE_WORKER_PIDS" in os.environ:
        with Path(os.environ["FAKE_WORKER_PIDS"]).open("a") as file:
            file.write(f"{pid}\n")


def start_grandchildren() -> None:
    code = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep({SLEEP_S})"
    for own_session in (False, True):
        note_pid(subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=own_session).pid)


def hang() -> NoReturn:
    while True:
        time.sleep(SLEEP_S)


def die(number: signal.Signals) -> NoReturn:
    os.kill(os.getpid(), number)
    hang()


def leave() -> NoReturn:
    sys.stderr.write("last words\n")
    sys.stderr.flush()
    os._exit(3)


def leak() -> NoReturn:
    kept = []
    while len(kept) < 64:  # bounded: a test that fails must not take the machine with it
        kept.append(b"\x01" * (16 * MIB))
        time.sleep(0.02)
    hang()


def fill_disk() -> NoReturn:
    for index in range(64):
        (Path(os.environ["TMPDIR"]) / f"cache_{index}").write_bytes(b"\x01" * MIB)
        time.sleep(0.02)
    hang()


def flood(piece: bytes) -> None:
    for _ in range(8 * MIB // len(piece)):
        os.write(2, piece)


def garbage() -> None:
    with talking:
        for junk in (b"Blender says hello\n", b"[1, 2]\n", b'{"event": 7}\n', b"\xff\xfe\x00\n", b"{" * 5000 + b"\n"):
            os.write(1, junk)
        os.write(1, b"x" * (3 * MIB) + b"\n")


IN_IMPORT: dict[str, Callable[[], Any]] = {
    "hang-in-import": hang, "segfault-in-import": lambda: die(signal.SIGSEGV), "leave": leave, "leak": leak,
    "fill-disk": fill_disk, "flood": lambda: flood((b"chatter " * 15 + b"\n") * 32),
    "flood-without-newlines": lambda: flood(b"x" * 4096), "garbage": garbage,
}  # fmt: skip
IN_VIEW: dict[str, Callable[[], Any]] = {
    "hang-in-view": hang, "segfault": lambda: die(signal.SIGSEGV), "out-of-memory": lambda: die(signal.SIGKILL),
    "silent": lambda: (heart_beats.clear(), hang()), "grandchildren": lambda: (start_grandchildren(), hang()),
}  # fmt: skip
AFTER: dict[str, Callable[[], Any]] = {
    "hang-between-jobs": hang, "die-between-jobs": lambda: die(signal.SIGSEGV), "leave-grandchildren": start_grandchildren,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------ pictures
def photograph(job: dict[str, Any], orbit: dict[str, Any], pose: Any, dye: Any) -> dict[str, Any]:
    """The ball seen from one camera (OpenGL axes), at pixel centres; `dye` is [3, 4]: wave vectors and phases."""
    height, width = job["height"], job["width"]
    v, u = np.mgrid[:height, :width] + 0.5
    focal, (cu, cv) = orbit["focal_px"], orbit["principal_px"]
    rays = np.stack([(u - cu) / focal, (cv - v) / focal, -np.ones_like(u)], -1) @ pose[:3, :3].T
    eye = pose[:3, 3]
    # |eye + t ray| = RADIUS_M; rays have length 1 along the optical axis, so t is the planar depth
    a, b, c = (rays**2).sum(-1), rays @ eye, eye @ eye - RADIUS_M**2
    root = b**2 - a * c
    hit = root > 0
    depth = np.where(hit, (-b - np.sqrt(np.maximum(root, 0))) / a, 1e10)
    normal = np.where(hit[..., None], (eye + depth[..., None] * rays) / RADIUS_M, 0.0)
    colour = (0.4 + 0.25 * np.sin(normal @ dye[:, :3].T + dye[:, 3])) * hit[..., None]
    one = hit.astype(float)
    planes = {
        "Depth.Z": depth,
        "Combined.A": one,
        "BaseWeight.V": one,
        "Roughness.V": 0.75 * one,
        "Metallic.V": 0 * one,
    }
    for index in range(3):
        planes[f"Normal.{'XYZ'[index]}"] = normal[..., index]
        for layer, factor in (("Combined", 1.0), ("BaseColour", 0.9), ("DiffCol", 0.9), ("GlossCol", 0.0)):
            planes[f"{layer}.{'RGB'[index]}"] = factor * colour[..., index]
    return {f"V.{name}": plane.astype(np.float32) for name, plane in planes.items()}


def write_view(path: Path, planes: dict[str, Any], behaviour: str) -> None:
    if behaviour == "blank":
        planes = {name: np.zeros_like(plane) for name, plane in planes.items()}
    if behaviour == "wrong-size":
        planes = {name: np.ascontiguousarray(plane[1:]) for name, plane in planes.items()}
    OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, planes).write(str(path))
    if behaviour == "cut-picture":
        path.write_bytes(path.read_bytes()[:200])


# ------------------------------------------------------------------------------------------------ jobs
def choose(asset: Path) -> str:
    table = json.loads(os.environ.get("FAKE_WORKER_TABLE", "{}"))
    behaviours = table.get(asset.name, sys.argv[1] if len(sys.argv) > 1 else "well").split(",")
    if len(behaviours) == 1:
        return str(behaviours[0])
    counter = Path(os.environ["FAKE_WORKER_ATTEMPTS"]) / asset.name
    with counter.open("ab") as file:
        attempt = file.tell()
        file.write(b".")
    return str(behaviours[min(attempt, len(behaviours) - 1)])


def render(job: dict[str, Any], behaviour: str) -> None:
    key, started = job["key"], time.monotonic()
    send("begin", key="another" if behaviour == "wrong-key" else key)
    asset = Path(job["asset"])
    digest = hashlib.sha256(asset.read_bytes()).digest()
    if behaviour == "unknown-event":
        send("surprise", key=key)
    IN_IMPORT.get(behaviour, lambda: None)()
    if behaviour.startswith("refuse"):
        reason = behaviour.partition(":")[2] or "no-triangles"
        send("error", key=key, reason=reason, message=f"refused as {reason}", stage="importing")
        return
    send("imported", key=key, mesh_hash=digest.hex(), **FACTS)
    heart_beats.set()
    rng = np.random.default_rng(list(digest))
    dye = np.concatenate([rng.uniform(-8, 8, (3, 3)), rng.uniform(0, 6, (3, 1))], 1)
    for orbit in job["orbits"]:
        for view in orbit["views"]:
            if view["index"] == FAIL_AT:
                IN_VIEW.get(behaviour, lambda: None)()
            time.sleep(float(os.environ.get("FAKE_WORKER_VIEW_S", "0")))
            planes = photograph(job, orbit, np.array(view["matrix_world"]), dye)
            write_view(Path(view["path"]), planes, behaviour)
            for _ in range(2 if behaviour == "extra-view" else 1):
                send("view", key=key, orbit=orbit["name"], index=view["index"], path=view["path"], render_s=0.001,
                     write_s=0.001)  # fmt: skip
    heart_beats.clear()
    stages = {"import_s": 0.001, "render_s": time.monotonic() - started, "write_s": 0.001}
    send("done", key=key, stages=stages, cpu_s=1.5, peak_bytes=MIB, rss_bytes=MIB)
    AFTER.get(behaviour, lambda: None)()


def main() -> None:
    note_pid(os.getpid())
    behaviour = sys.argv[1] if len(sys.argv) > 1 else "well"
    if behaviour == "hang-at-start":
        start_grandchildren()
        hang()
    if behaviour == "leave-at-start":
        leave()
    send("hello", blender="0.0 fake", device="CPU", pid=os.getpid())
    threading.Thread(target=beat, daemon=True).start()
    for line in sys.stdin:
        job = json.loads(Path(line.strip()).read_text())
        behaviour = choose(Path(job["asset"]))
        render(job, behaviour)
    if behaviour == "hang-at-exit":
        hang()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)
