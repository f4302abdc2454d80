"""The parent's side of one object, with a worker that needs no Blender: commit, resume, and every way to fail."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engine.errors import TurntableError
from engine.files import Normalisation, OrbitImages, read_orbit
from render_farm import render as module
from render_farm.errors import FarmError
from render_farm.records import Filters, Provenance
from render_farm.render import render_asset
from render_farm.run.owner import Owner
from render_farm.spec import AssetPolicy, CameraSpec, Condition, Execution, RenderSpec

SPEC = RenderSpec(cameras=CameraSpec("ring16"), width=32, height=32, samples=1, seed=5)
PATIENT = Execution(threads=1)
ROOT = Path(__file__).parents[2]
Fake = Callable[[str], tuple[str, ...]]


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def refusal(asset: Path, out: Path, worker: tuple[str, ...], execution: Execution = PATIENT) -> FarmError:
    with pytest.raises(FarmError) as caught:
        render_asset(asset, out, SPEC, execution=execution, worker=worker)
    return caught.value


def test_orbit_is_written_and_whole(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    seen: list[tuple[int, int]] = []
    report = render_asset(
        box_glb, tmp_path / "out", SPEC, execution=PATIENT, worker=fake_worker("well"), uid="blue-disc",
        progress=lambda ready, total: seen.append((ready, total)),
    )  # fmt: skip
    assert report.path == tmp_path / "out" / "blue-disc.ring16.json"
    assert (report.reused, report.views, report.cpu_s, report.peak_bytes) == (False, 16, 1.5, 2**20)
    assert report.warnings == ("texture 'a.png' is missing",)
    assert seen == [(i, 16) for i in range(1, 17)]
    images = read_orbit(report.path)
    assert images.rgba[3, 16, 16, 3] == 255
    assert images.depth_m is not None
    assert images.normal is not None
    # the ball's front is 0.4 m nearer than the origin; pixel centres lie half a pixel off the axis; 16-bit depth
    assert abs(images.depth_m[3, 16, 16] - (1.5 - 0.4)) < 2e-3
    assert images.depth_m[3, 0, 0] == 0
    # half a pixel off the axis on a ball of radius 9 pixels: 3 degrees; 8-bit normals
    towards = images.orbit.T_world_camera[3, :3, 3] / 1.5
    assert images.normal[3, 16, 16] @ towards > np.cos(np.radians(6))
    assert images.normalisation == Normalisation(0.5, (1.0, 2.0, 3.0))
    assert images.seed == 5
    assert images.source == "box.glb"
    assert images.renderer["blender"] == "0.0 fake"
    assert not [name for name in contents(tmp_path / "out") if name.endswith(".partial")]


def test_rerun_does_nothing_and_another_spec_renders(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, caplog: pytest.LogCaptureFixture
) -> None:
    first = render_asset(box_glb, tmp_path / "out", SPEC, worker=fake_worker("well"))
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    with caplog.at_level("INFO"):
        again = render_asset(box_glb, tmp_path / "out", SPEC, worker=fake_worker("segfault"))
    assert again.reused
    assert again.path == first.path
    assert f"{first.path} is whole and made from this asset and spec: nothing to do" in caplog.text
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before
    other = replace(SPEC, samples=2)
    assert not render_asset(box_glb, tmp_path / "out", other, worker=fake_worker("well")).reused


def test_damaged_orbit_is_rendered_again(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    report = render_asset(box_glb, tmp_path, SPEC, worker=fake_worker("well"))
    (tmp_path / "box.ring16.rgba_07.webp").unlink()
    assert not render_asset(box_glb, tmp_path, SPEC, worker=fake_worker("well")).reused
    read_orbit(report.path)


@pytest.mark.slow
def test_changed_asset_is_rendered_again(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    render_asset(box_glb, tmp_path, SPEC, worker=fake_worker("well"))
    box_glb.write_bytes(box_glb.read_bytes().replace(b"0.2", b"0.3"))
    assert not render_asset(box_glb, tmp_path, SPEC, worker=fake_worker("well")).reused


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("segfault", "box.glb: Blender was killed by SIGSEGV while rendering ring16 view 3; see its last words with -v; the model "
                     "may be broken [crash]"),
        ("out-of-memory", "box.glb: Blender was killed by SIGKILL while rendering ring16 view 3, as happens when memory runs "
                          "out; give it more, or simplify the model [memory]"),
        ("leave", "box.glb: Blender exited with status 3 while importing; see its last words with -v; the model may be "
                  "broken [crash]"),
        ("refuse", "box.glb: refused as no-triangles [no-triangles]"),
        ("blank", "box, orbit ring16: all 16 pictures are empty: expected the object, found nothing opaque; are its materials fully "
                  "transparent? [blank]"),
    ],
)  # fmt: skip
def test_failures(box_glb: Path, tmp_path: Path, fake_worker: Fake, behaviour: str, message: str) -> None:
    error = refusal(box_glb, tmp_path / "new" / "out", fake_worker(behaviour))
    assert str(error) == message
    assert not (tmp_path / "new").exists()
    if behaviour == "leave":
        assert error.detail.splitlines()[-1] == "last words"


def test_cut_picture(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    error = refusal(box_glb, tmp_path / "out", fake_worker("cut-picture"))
    assert str(error).startswith("box.glb: ring16.000.exr: Blender's EXR cannot be read (")
    assert str(error).endswith("); is the disk full? [bad-output]")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("behaviour", "stage", "limit"),
    [
        ("hang-at-start", "starting Blender", "start_timeout_s"),
        ("hang-in-import", "importing", "import_timeout_s"),
        ("grandchildren", "rendering ring16 view 3", "view_timeout_s"),
    ],
)
def test_hangs(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, started_pids: Callable[[], list[int]], behaviour: str, stage: str,
    limit: str,
) -> None:  # fmt: skip
    error = refusal(box_glb, tmp_path / "out", fake_worker(behaviour), Execution(threads=1, **{limit: 1.5}))
    assert str(error) == (
        f"box.glb: not done within 1.5 s while {stage}: stopped; raise the time limit or simplify the model [timeout]"
    )
    assert error.stage == stage
    until = time.monotonic() + 5
    while time.monotonic() < until and any(map(_runs, started_pids())):
        time.sleep(0.05)
    assert [pid for pid in started_pids() if _runs(pid)] == []
    assert contents(tmp_path / "out") == []


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_hang_at_exit_loses_nothing(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("render_farm.blender.EXIT_GRACE_S", 0.2)
    report = render_asset(box_glb, tmp_path / "out", SPEC, worker=fake_worker("hang-at-exit"))
    read_orbit(report.path)


def test_out_is_a_file(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    out = tmp_path / "taken"
    out.write_text("mine")
    error = refusal(box_glb, out, fake_worker("well"))
    assert str(error) == f"cannot write to {out}: File exists; choose another folder [write-failed]"
    assert out.read_text() == "mine"


def test_unwritable_folder(box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal is played."""

    def refuse(*args: Any, **kwargs: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(module.tempfile, "mkdtemp", refuse)
    out = tmp_path / "a" / "b"
    error = refusal(box_glb, out, fake_worker("well"))
    assert str(error) == f"cannot write to {out}: Permission denied; choose another folder [write-failed]"
    assert not (tmp_path / "a").exists()


def test_disk_full_while_writing_the_orbit(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # the last step of the first file's commit
    monkeypatch.setattr(Path, "replace", refuse)
    out = tmp_path / "out"
    with pytest.raises(TurntableError, match=r"^disk full: cannot write .*; make room or choose another folder"):
        render_asset(box_glb, out, SPEC, worker=fake_worker("well"))
    assert not out.exists()


def test_disk_full_in_the_worker(box_glb: Path, tmp_path: Path) -> None:
    """A file size limit stands for a full disk: the worker's picture and then the parent's reading of it fail."""
    code = (
        "import resource, signal, sys; from pathlib import Path; from render_farm.render import render_asset; "
        "from render_farm.spec import RenderSpec; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        f"try: render_asset(Path({str(box_glb)!r}), Path({str(tmp_path / 'out')!r}), "
        f"RenderSpec(width=256, height=256), worker=(sys.executable, {str(Path(__file__).parent / 'fake_worker.py')!r}, "
        "'well'))\nexcept Exception as e: sys.stdout.write(f'{type(e).__name__} {e}')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.startswith("FarmError "), done.stdout + done.stderr
    assert done.stdout.endswith(("[write-failed]", "[bad-output]", "[crash]"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_run_leaves_no_orbit_and_is_swept_up(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    out = tmp_path / "out"
    code = (
        "import sys; from pathlib import Path; from render_farm.render import render_asset; "
        "from render_farm.spec import CameraSpec, RenderSpec; "
        f"render_asset(Path({str(box_glb)!r}), Path({str(out)!r}), RenderSpec(cameras=CameraSpec('ring16'), width=32, "
        f"height=32, samples=1, seed=5), worker={fake_worker('hang-in-view')!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"FAKE_WORKER_PIDS": str(tmp_path / "pids")}
    )
    until = time.monotonic() + 60
    while not (tmp_path / "pids").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [name for name in contents(out) if not name.endswith(".partial")] == []
    assert len(contents(out)) == 1
    report = render_asset(box_glb, out, SPEC, worker=fake_worker("well"))
    assert not report.reused
    assert not [name for name in contents(out) if name.endswith(".partial")]


def test_working_folders_of_the_living_stay(tmp_path: Path) -> None:
    me = Owner.current()
    dead = replace(me, started=me.started - 60)  # had our id before us
    stale, far, foreign = (tmp_path / f".{name}.x1.partial" for name in (dead.label, "elsewhere.1.1", "somebody"))
    for folder in (stale, far, foreign):
        folder.mkdir()
    with module.working_folder(tmp_path) as mine, module.working_folder(tmp_path) as other:
        assert mine.is_dir()
        assert other.is_dir()
        assert not stale.exists()
    assert contents(tmp_path) == sorted([far.name, foreign.name])


def test_a_folder_whose_name_is_too_long(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    error = refusal(box_glb, tmp_path / ("a" * 300), fake_worker("well"))
    assert str(error).endswith("File name too long; choose another folder [write-failed]")


# ------------------------------------------------------------------------------------------------ the farm's checks
def test_what_the_farm_refuses_is_refused(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    far = replace(SPEC, cameras=CameraSpec("ring16", distance_m=12.0))
    with pytest.raises(FarmError) as caught:
        render_asset(box_glb, tmp_path / "out", far, worker=fake_worker("well"))
    assert (caught.value.reason, caught.value.stage) == ("tiny", "checking")
    assert str(caught.value).startswith(
        "box, orbit ring16: expected the object to cover at least 0.50% of its average "
    )
    assert not (tmp_path / "out").exists()
    kept = render_asset(box_glb, tmp_path / "out", far, worker=fake_worker("well"), filters=Filters(tiny_coverage=0.0))
    assert kept.path.exists()


def test_poses_that_do_not_fit_their_pictures_are_refused(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Depth of the wrong scale: each view by itself looks right."""
    gather = module.gather

    def nearer(*args: Any, **kwargs: Any) -> tuple[OrbitImages, ...]:
        images = gather(*args, **kwargs)
        assert all(one.depth_m is not None for one in images)
        return tuple(replace(one, depth_m=one.depth_m * np.float32(1.1)) for one in images if one.depth_m is not None)

    monkeypatch.setattr(module, "gather", nearer)
    error = refusal(box_glb, tmp_path / "out", fake_worker("well"))
    assert error.reason == "inconsistent"
    assert not (tmp_path / "out").exists()


def test_what_the_farm_flags_is_a_warning(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    strict, close = Filters(white_share=-1.0), replace(SPEC, cameras=CameraSpec("ring16", distance_m=0.95))
    report = render_asset(box_glb, tmp_path, close, worker=fake_worker("well"), filters=strict)
    assert report.warnings == (
        "texture 'a.png' is missing",
        "the object reaches the edge of 16 of 16 pictures (first: view 0)",
        "much of the object is clipped to white; lower the light's strength",
    )
    assert read_orbit(report.path).renderer["warnings"] == list(report.warnings)
    again = render_asset(box_glb, tmp_path, close, worker=fake_worker("segfault"))
    assert (again.reused, again.warnings) == (True, report.warnings)


# ------------------------------------------------------------------------------------------------ several orbits
TWO = replace(SPEC, condition=Condition())


def test_all_orbits_are_written_and_found_again(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    out = tmp_path / "out"
    report = render_asset(box_glb, out, TWO, worker=fake_worker("well"), provenance=Provenance(source="https://a.b"))
    assert report.paths == (out / "box.ring16.json", out / "box.condition.json")
    assert (report.views, report.path) == (20, report.paths[0])
    orbits = [read_orbit(path) for path in report.paths]
    assert [len(images.orbit) for images in orbits] == [16, 4]
    assert [images.renderer["light"]["kind"] for images in orbits] == ["uniform", "hdri"]
    assert {images.source for images in orbits} == {"https://a.b"}
    again = render_asset(box_glb, out, TWO, worker=fake_worker("segfault"))
    assert (again.reused, again.paths, again.views, again.warnings) == (True, report.paths, 20, report.warnings)
    report.paths[1].unlink()
    assert not render_asset(box_glb, out, TWO, worker=fake_worker("well")).reused


def test_no_orbit_is_there_before_all_are(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever the process might be killed: a json in the folder means that the pictures of all orbits are there."""
    out, moved = tmp_path / "out", []
    rename = Path.replace

    def watch(self: Path, target: Path) -> Path:
        if Path(target).parent == out:
            moved.append(Path(target).name)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", watch)
    render_asset(box_glb, out, TWO, worker=fake_worker("well"))
    jsons = [index for index, name in enumerate(moved) if name.endswith(".json")]
    assert jsons == [len(moved) - 2, len(moved) - 1]
    assert len(moved) == 20 * 4 + 2  # rgba, depth, normal, albedo of each view


def test_a_failure_among_the_last_steps_leaves_nothing(
    box_glb: Path, tmp_path: Path, fake_worker: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    rename = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if Path(target) == out / "box.condition.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(FarmError, match=r"^cannot write to .*: Input/output error; .* \[write-failed\]$"):
        render_asset(box_glb, out, TWO, worker=fake_worker("well"))
    assert not out.exists()


def test_pictures_of_a_former_write_go(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    render_asset(box_glb, tmp_path, SPEC, worker=fake_worker("well"))
    mine = tmp_path / "box.ring16.preview.png"
    mine.write_text("mine")
    report = render_asset(box_glb, tmp_path, replace(SPEC, passes=()), worker=fake_worker("well"))
    names = [name for name in contents(tmp_path) if name.startswith("box.ring16.")]
    assert len(names) == 16 + 1 + 1  # colour, the json, and a file of somebody else's
    assert mine.exists()
    assert read_orbit(report.path).depth_m is None


def test_stored_quality_is_the_specs(box_glb: Path, tmp_path: Path, fake_worker: Fake) -> None:
    sizes = []
    for name, quality in (("exact", "lossless"), ("small", 1)):
        out = tmp_path / name
        render_asset(box_glb, out, replace(SPEC, quality=quality), worker=fake_worker("well"))
        sizes.append(sum(path.stat().st_size for path in out.glob("*.rgba_*.webp")))
    assert sizes[1] < sizes[0]


def test_files_over_the_budget_are_refused_before_blender(box_glb: Path, tmp_path: Path) -> None:
    small = replace(SPEC, assets=AssetPolicy(max_file_bytes=100))
    with pytest.raises(FarmError, match=r"^box\.glb: \d+ bytes, more than the 100 allowed .* \[too-large\]$"):
        render_asset(box_glb, tmp_path / "out", small, worker=("/nowhere",))
    assert not (tmp_path / "out").exists()
