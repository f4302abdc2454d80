"""A real Blender that runs out of memory, of disk or of time, or falls over: the reason is named, the next job is done."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from render_farm.assets import load_asset
from render_farm.blender import Blender
from render_farm.cameras import plan_orbits
from render_farm.errors import FarmError
from render_farm.gather import make_job
from render_farm.job import Job
from render_farm.render import render_asset
from render_farm.spec import AssetPolicy, CameraSpec, Execution, RenderSpec

pytestmark = pytest.mark.blender

SPEC = RenderSpec(CameraSpec("ring24", views=3, elevation_deg=10.0), width=256, height=256, samples=1)
EXECUTION = Execution(threads=2)
MIB = 2**20


@pytest.fixture
def job(tmp_path: Path, box_glb: Path) -> Job:
    folder = tmp_path / "views"
    folder.mkdir()
    asset = load_asset(box_glb)
    planned = plan_orbits(1, SPEC)
    return make_job(
        "k", asset.path, asset.suffix, planned=planned, seed=1, spec=SPEC, execution=EXECUTION, folder=folder
    )


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_memory_bytes": 64 * MIB}, "memory"),  # Blender alone is larger
        ({"max_scratch_bytes": 1 * MIB}, "disk-full"),  # one EXR of 256 x 256 with its passes is 3 MB
        ({"import_timeout_s": 1e-3}, "timeout"),
    ],
)
def test_limits(tmp_path: Path, job: Job, limits: dict[str, Any], reason: str) -> None:
    children: list[int] = []
    long = replace(job, samples=128)  # it is looked at every half second
    with Blender(replace(EXECUTION, **limits), tmp_path) as blender:
        with pytest.raises(FarmError) as caught:
            blender.run(long, on_event=lambda event: children.append(blender.pid or 0))
        assert caught.value.reason == reason
        assert blender.pid is None
        blender.execution = EXECUTION
        assert len(blender.run(job).views["ring24"]) == 3
    assert not any(psutil.pid_exists(pid) for pid in children)


def test_a_segmentation_fault(tmp_path: Path, job: Job) -> None:
    def shoot(event: dict[str, Any]) -> None:
        if event["event"] == "view":
            assert blender.pid is not None
            os.kill(blender.pid, signal.SIGSEGV)

    with Blender(EXECUTION, tmp_path) as blender:
        with pytest.raises(FarmError, match="SIGSEGV") as caught:
            blender.run(job, on_event=shoot)
        assert caught.value.reason == "crash"
        assert caught.value.stage.startswith("rendering ring24 view")
        assert len(blender.run(job).views["ring24"]) == 3


def test_a_transparent_object_that_is_not_wanted(tmp_path: Path, make_glb: Any, make_box: Any) -> None:
    part = make_box(baseColorFactor=[1, 1, 1, 0.5])
    part.material["alphaMode"] = "BLEND"
    path = make_glb(tmp_path / "veil.glb", part)
    spec = replace(SPEC, assets=AssetPolicy(transparent="refuse"))
    with pytest.raises(FarmError) as caught:
        render_asset(path, tmp_path / "out", spec, execution=EXECUTION)
    assert caught.value.reason == "transparent"
    assert caught.value.args[0].endswith("is transparent: allow it with the policy keep or opaque")
    assert not (tmp_path / "out").exists()
