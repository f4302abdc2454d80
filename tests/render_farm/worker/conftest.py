"""A long-lived worker, spoken to as the farm does, with nothing of the farm between: jobs in, events and EXRs out."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest

from engine.geometry import Orbit, frames
from render_farm.job import Job, OrbitJob, ViewJob
from render_farm.spec import AssetPolicy

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
SIZE = 48
UNIFORM = {"kind": "uniform", "strength": 1.0}


@dataclass(frozen=True)
class Outcome:
    """What became of one job."""

    events: list[dict[str, Any]]

    def only(self, kind: str) -> dict[str, Any]:
        found = [event for event in self.events if event["event"] == kind]
        assert len(found) == 1, self.events
        return found[0]

    @property
    def facts(self) -> dict[str, Any]:
        return self.only("imported")

    @property
    def error(self) -> dict[str, Any]:
        return self.only("error")

    def channels(self, orbit: str = "test") -> list[dict[str, Any]]:
        """Of each view: channel name without the layer's -> [h, w]."""
        paths = [event["path"] for event in self.events if event["event"] == "view" and event["orbit"] == orbit]
        found = []
        for path in paths:
            file = OpenEXR.File(path, separate_channels=True)
            named = {name: c.pixels for part in file.parts for name, c in part.channels.items()}
            found.append({".".join(name.split(".")[-2:]): np.array(pixels) for name, pixels in named.items()})
        return found


def cameras(azimuths: Any = (30.0,), elevation: float = 20.0, distance: float = 2.6, name: str = "test") -> Orbit:
    """A few cameras that see the whole object."""
    places = np.asarray(azimuths, float)
    return Orbit.around_origin(
        name, places, np.full(len(places), elevation), np.full(len(places), distance), 40.0, SIZE, SIZE
    )


class Worker:
    """One child of ``python -m render_farm.worker``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = os.environ | {
            "PYTHONPATH": str(ROOT), "BLENDER_USER_RESOURCES": str(folder / "blender"), "TMPDIR": str(folder),
            "OMP_NUM_THREADS": "2",
        }  # fmt: skip
        self.log = (folder / "stderr").open("w+")
        self.child = subprocess.Popen(
            [sys.executable, "-m", "render_farm.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
            env=environment, text=True, cwd=folder,
        )  # fmt: skip
        self.hello = self.read()
        self.jobs = 0

    def read(self) -> dict[str, Any]:
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        assert line, f"the worker ended: {(self.folder / 'stderr').read_text()[-2000:]}"
        event: dict[str, Any] = json.loads(line)
        return event

    def send(self, path: Path) -> Outcome:
        assert self.child.stdin is not None
        self.child.stdin.write(f"{path}\n")
        self.child.stdin.flush()
        events = [self.read()]
        while events[-1]["event"] not in {"done", "error"}:
            events.append(self.read())
        return Outcome(events)

    def job(
        self, asset: Path, *orbits: Orbit, lights: Any = (), policy: Any = None, **fields: Any
    ) -> Job:  # fmt: skip
        self.jobs += 1
        key = f"job{self.jobs}"
        (self.folder / key).mkdir()
        made = []
        for index, orbit in enumerate(orbits or (cameras(),)):
            views = tuple(
                ViewJob(i, tuple(map(tuple, pose.tolist())), str(self.folder / key / f"{orbit.name}{i}.exr"))
                for i, pose in enumerate(frames.to_blender(orbit.T_world_camera))
            )
            light = lights[index] if lights else UNIFORM
            made.append(OrbitJob(orbit.name, float(orbit.focal_px), orbit.principal_px, light, views))
        job = Job(
            key, str(asset), asset.suffix, SIZE, SIZE, tuple(made), asdict(AssetPolicy(**(policy or {}))), 4, 1, "none",
            ("depth", "normal", "albedo", "material"), "cpu", 2, "",
        )  # fmt: skip
        return dataclasses.replace(job, **fields)

    def run(self, asset: Path, *orbits: Orbit, **fields: Any) -> Outcome:
        """Render one small job; see `job`."""
        job = self.job(asset, *orbits, **fields)
        path = self.folder / f"{job.key}.json"
        job.save(path)
        return self.send(path)

    def close(self) -> int:
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.child.wait(20)


@pytest.fixture(scope="session")
def start_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Worker]]:
    started: list[Worker] = []

    def start() -> Worker:
        started.append(Worker(tmp_path_factory.mktemp("worker")))
        return started[-1]

    yield start
    for worker in started:
        worker.child.kill()
        worker.child.wait()
        worker.log.close()


@pytest.fixture(scope="session")
def worker(start_worker: Callable[[], Worker]) -> Worker:
    """One for the whole session: what one test leaves behind, the next one would see."""
    return start_worker()


@pytest.fixture(scope="session")
def make_cameras() -> Callable[..., Orbit]:
    return cameras


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs programs/export_NAME.py and returns the folder that it has filled."""

    def export(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        command = [sys.executable, str(HERE / "programs" / f"export_{name}.py"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return folder

    return export


@pytest.fixture(scope="session")
def moving(exported: Callable[[str], Path]) -> Path:
    return exported("moving")
