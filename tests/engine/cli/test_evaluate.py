"""`turntable evaluate` from shards to a table: what it leaves, how it goes on, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.cli import main
from engine.files import OrbitImages, write_mesh, write_shard
from engine.meshing import MeshSettings
from engine.multiview.random_weights import random_videomv
from engine.presets import PRESETS
from engine.splats import Gaussians
from tests.engine.balls import ball_mesh, ball_orbit
from tests.process_state import hear_ctrl_c, kept

ROOT = Path(__file__).parents[3]
QUICK = ["--threads", "1", "--device", "cpu", "--steps", "1", "--iterations", "5", "--resolution", "24"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two balls to evaluate, one of them captioned; three of training; the balls' true meshes."""
    folder = tmp_path_factory.mktemp("data")
    ball = ball_orbit(size=32, views=24)
    dark = replace(ball, uid="dark", label="planet", caption="a dark ball", rgba=_times(ball.rgba, 0.5))
    light = replace(ball, uid="light", label="ball")
    write_shard(folder / "val.tar", [dark, light])
    write_shard(folder / "captioned.tar", [dark])
    training = [replace(ball, uid=f"t{k}", label="ball", rgba=_times(ball.rgba, k / 10)) for k in (2, 6, 9)]
    write_shard(folder / "train.tar", training)
    write_shard(folder / "few.tar", [ball_orbit(size=32, views=12)])
    (folder / "truth").mkdir()
    write_mesh(folder / "truth" / "dark.glb", ball_mesh())
    return folder


def _times(rgba: np.ndarray, factor: float) -> np.ndarray:
    result = rgba.copy()
    result[..., :3] = (rgba[..., :3] * factor).astype(np.uint8)
    return result


def turntable(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", "evaluate", *map(str, arguments), *QUICK]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)


@pytest.mark.slow
def test_everything_is_measured_and_a_rerun_makes_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["--preset", "tiny", "--orbits", data / "val.tar", "--baseline-orbits", data / "train.tar", "--out", out,
               "--compare", "plain,3d-aware", "--cross-view-every", 2, "--splats-every", 2]  # fmt: skip
    done = turntable(*command)
    assert done.returncode == 0, done.stderr
    assert "object 2 of 2, light: done" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == str(out)
    for words in (
        "  plain  ",
        "  3d-aware - plain ",
        "  input view repeated ",
        "  nearest training object ",
        "  true views ",
    ):
        assert any(line.startswith(words) for line in lines), words
    report = json.loads((out / "evaluation.json").read_text())
    assert (report["preset"], report["source"], report["count"], report["size_px"]) == ("tiny", "picture", 2, 32)
    assert report["weights"][0]["random"] is True
    assert {"commit", "command", "device", "versions", "settings", "licences", "failures"} <= set(report)
    objects = report["objects"]
    assert {uid: one["nearest"]["uid"] for uid, one in objects.items()} == {"dark": "t6", "light": "t9"}
    assert {uid: one["label_seen"] for uid, one in objects.items()} == {"dark": False, "light": True}
    assert set(objects["dark"]["figures"]["plain"]) == {"views", "cross-view", "splats fitted", "splats feed-forward"}
    assert set(objects["light"]["figures"]["plain"]) == {"views"}
    summary = report["summary"]["views"]
    assert set(summary) == {"all", "labels seen in training", "labels unseen in training"}
    psnr = [objects[uid]["figures"]["3d-aware"]["views"]["novel"]["psnr_db"] for uid in ("dark", "light")]
    assert summary["all"]["means"]["3d-aware"]["psnr_db"]["mean"] == pytest.approx(np.mean(psnr))
    assert Image.open(out / "examples.png").width > 8 * 32
    assert len(list((out / "views" / "3d-aware").glob("*.json"))) == 2

    before = (out / "measurements.jsonl").read_bytes()
    again = turntable(*command)
    assert again.returncode == 0, again.stderr
    assert "random weights" not in again.stderr  # nothing was loaded
    assert (out / "measurements.jsonl").read_bytes() == before
    assert again.stdout == done.stdout


@pytest.mark.slow
def test_sentences_are_measured_by_their_agreement_alone(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = turntable("--preset", "tiny", "--source", "text", "--orbits", data / "captioned.tar", "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "evaluation.json").read_text())
    assert set(report["summary"]) == {"cross_view"}
    assert set(report["objects"]["dark"]["figures"]) == {"generated", "true views"}


def test_meshes_are_held_against_their_own_truth(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def measured(splats: Gaussians, views: OrbitImages, settings: MeshSettings, truth: Path) -> dict[str, Any]:
        asked.append((len(views.orbit), settings.resolution, truth))
        return {"chamfer": 0.1 * len(asked), "fscore": 0.5, "iou": None}

    monkeypatch.setattr("engine.evaluation.measuring.mesh_error", measured)  # meshes of noise take minutes
    out = tmp_path / "out"
    with kept():
        main(["evaluate", "--preset", "tiny", "--orbits", str(data / "captioned.tar"), "--out", str(out), "--truth",
              str(data / "truth"), "--cross-view-every", "0", "--splats-every", "0", *QUICK])  # fmt: skip
    assert asked == [(24, 24, data / "truth" / "dark.glb")] * 3
    figures = json.loads((out / "evaluation.json").read_text())["objects"]["dark"]["figures"]
    assert set(figures["generated"]) == {"views", "mesh fitted", "mesh feed-forward"}
    assert figures["true views"] == {"mesh fitted": {"chamfer": pytest.approx(0.3), "fscore": 0.5, "iou": None}}
    assert "mesh from the reconstructor's splats, against the true mesh:" in capsys.readouterr().out


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_measured(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "engine.cli", "evaluate", "--preset", "tiny", "--orbits", str(data / "val.tar"),
               "--out", str(out), *QUICK]  # fmt: skip
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    while child.poll() is None and not (out / "measurements.jsonl").exists():
        pass
    os.kill(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    kept_lines = (out / "measurements.jsonl").read_text().splitlines()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (out / "measurements.jsonl").read_text().splitlines()[: len(kept_lines)] == kept_lines


BAD: list[tuple[list[str], str, int]] = [
    (["--orbits", "DATA/none-*.tar"], "none-*.tar: no shard found", 1),
    (["--orbits", "DATA/few.tar"],
     "few.tar: holds no orbit of 24 views, 39.6 degrees wide, which is what these weights make, but 1 of ring12: 12 "
     "views, 39.6 degrees wide; give shards of the preset's orbit", 1),
    (["--orbits", "DATA/val.tar", "--source", "text"],
     "--preset tiny starts from sentences, and 1 of 2 orbits have no caption: light; render them with captions", 1),
    (["--orbits", "DATA/val.tar", "--truth", "DATA/truth"],
     "lacks the true mesh of 1 of 2 objects: light.glb; put them there, or leave --truth", 1),
    (["--orbits", "DATA/val.tar", "--truth", "DATA/nowhere"], "--truth must name a folder of true meshes", 1),
    (["--orbits", "DATA/val.tar", "--baseline-orbits", "DATA/few.tar"],
     "few.tar: holds no orbit of 24 views, 39.6 degrees wide; give --baseline-orbits of the same kind as --orbits", 1),
    (["--orbits", "DATA/val.tar", "--compare", "refined"], "--compare refined: --preset tiny has plain", 1),
    (["--orbits", "DATA/val.tar", "--limit", "0"], "--limit must be at least 1, got 0", 2),
    (["--orbits", "DATA/val.tar", "--mesh-every", "-1"], "--mesh-every must be 0 (none) or more, got -1", 2),
    (["--orbits", "DATA/val.tar", "--lpips", "DATA/no.pth"], "no.pth", 1),
    (["--orbits", "DATA/val.tar", "--weights", "DATA"], "--preset tiny has random weights: leave --weights", 1),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words", "status"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_requests_end_in_one_line(
    arguments: list[str], words: str, status: int, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.replace("DATA", str(data)) for word in arguments]
    out = tmp_path / "out"
    with kept():
        found = main(["evaluate", "--preset", "tiny", *given, "--out", str(out), *QUICK[:4]])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert (found, len(lines), said.out) == (status, 1, ""), said.err
    assert words in lines[0]
    assert "unexpected" not in lines[0]
    assert not out.exists() or not list(out.iterdir())


def test_a_folder_of_something_else_is_left_alone(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("my own")
    with kept():
        found = main(
            ["evaluate", "--preset", "tiny", "--orbits", str(data / "val.tar"), "--out", str(tmp_path), *QUICK]
        )
    assert found == 1
    assert "holds thesis.txt, which is no evaluation's: give --out an empty or a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_weights_without_a_reconstructor_cannot_be_compared_3d_aware(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = random_videomv(PRESETS["tiny"].settings["picture"])
    del pipeline.components["reconstructor"]
    pipeline.save_pretrained(tmp_path / "weights")
    with kept():
        found = main(["evaluate", "--preset", "videomv-image", "--weights", str(tmp_path / "weights"), "--compare", "plain",
                      "3d-aware", "--orbits", str(data / "val.tar"), "--out", str(tmp_path / "out"), *QUICK])  # fmt: skip
    assert found == 1
    assert "--compare 3d-aware: these weights hold no reconstructor; they have" in capsys.readouterr().err
