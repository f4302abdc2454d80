"""A picture or a sentence becomes a result folder; whatever happens on the way, a rerun ends with a whole one."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.checkpoints.layout import read_index, write_index
from engine.cli import main
from engine.files import read_mesh, read_orbit, read_splats, read_video
from engine.multiview.random_weights import random_videomv
from engine.presets import PRESETS
from tests.process_state import hear_ctrl_c, kept

ROOT = Path(__file__).parents[2]
QUICK = ["--threads", "2", "--device", "cpu", "--steps", "2", "--iterations", "5", "--resolution", "24"]
FILES = {"orbit.json", "splats.ply", "mesh.glb", "turntable.mp4", "preview.png", "report.json"}


def turntable(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "engine.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "Red ball.png"
    v, u = np.mgrid[:120, :160]
    alpha = 255 * ((u - 80) ** 2 + (v - 60) ** 2 < 2500)
    Image.fromarray(np.dstack([255 - u, v, 0 * u + 40, alpha]).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "text"
    random_videomv(PRESETS["tiny"].settings["text"]).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_a_picture_becomes_an_asset(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = turntable("generate", "--image", picture, "--preset", "tiny", "--out", out, "--elevation-deg", 10, *QUICK)
    assert (done.returncode, done.stdout) == (0, f"{out}\n"), done.stderr
    assert "random weights, the result is noise" in done.stderr
    assert {path.name for path in out.iterdir()} >= FILES | {"picture.png", "feed_forward.ply"}
    orbit = read_orbit(out / "orbit.json")
    assert (orbit.uid, orbit.orbit.name, set(orbit.orbit.elevation_deg)) == ("red_ball", "ring24", {10.0})
    assert len(read_splats(out / "splats.ply")) > 0
    assert len(read_mesh(out / "mesh.glb").faces) > 0
    assert len(read_video(out / "turntable.mp4")[0]) == 24
    report = json.loads((out / "report.json").read_text())
    assert (report["preset"], report["seed"], report["image"], report["text"]) == ("tiny", 0, "Red ball.png", None)
    assert report["weights"] == [{"name": "tiny", "random": True, "note": "random weights: the result is noise"}]
    assert list(report["stages"]) == ["picture", "views", "splats", "mesh", "turntable", "quality"]
    assert report["generation"]["steps"] == 2
    assert report["picture"] == {"notes": []}
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = turntable("generate", "--image", picture, "--preset", "tiny", "--out", out, "--elevation-deg", 10, *QUICK)
    assert again.returncode == 0
    assert again.stderr.count("already there") == 6
    assert {n: t for n, t in before.items() if n != "report.json"} == {
        path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "report.json"
    }


@pytest.mark.slow
def test_text_with_given_weights_and_feed_forward_splats(weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["generate", "--text", "a red lighthouse!", "--preset", "videomv-text", "--weights", weights, "--out", out,
               "--splats", "feed-forward", "--elevation-deg", 10, *QUICK, "--faces", 500, "--texture-size", 64]  # fmt: skip
    done = turntable(*command)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert (report["uid"], report["text"]) == ("a_red_lighthouse", "a red lighthouse!")
    assert {entry["name"].split("/")[0] for entry in report["weights"]} == {
        "unet",
        "vae",
        "text_encoder",
        "reconstructor",
    }
    assert all(len(entry["sha256"]) == 64 for entry in report["weights"])
    assert len(read_splats(out / "splats.ply")) == len(read_splats(out / "feed_forward.ply")) == 1024
    other = turntable(*command, "--seed", 1)
    assert "views: settings or input have changed" in other.stderr


@pytest.mark.slow
def test_hi3d_from_a_picture_in_one_process_stopped_and_resumed(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "engine.cli", "generate", "--image", str(picture), "--preset", "tiny-hi3d", "--out",
               str(out), *QUICK]  # fmt: skip
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    while child.poll() is None and not (out / "orbit.json").exists():
        pass
    os.kill(child.pid, signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130, said
    assert "error: stopped: whole stages are kept" in said
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "picture: already there" in done.stderr
    assert {path.name for path in out.iterdir()} >= FILES


BAD: list[tuple[list[str], str, int]] = [
    (["--text", " ", "--preset", "tiny"], "--text is empty: describe the object in a few words", 2),
    (["--preset", "tiny"], "give exactly one of --image FILE and --text SENTENCE", 2),
    (["--text", "a", "--image", "PICTURE", "--preset", "tiny"], "give exactly one of --image FILE", 2),
    (["--text", "a", "--preset", "nice"], "--preset nice: there is none of that name; take one of videomv-text", 1),
    (["--text", "a", "--preset", "videomv-image"],
     "--preset videomv-image takes --image, got --text; presets that take --text: videomv-text, mini, tiny, or add "
     "--text-to-image MODEL, which paints the picture first", 1),
    (["--image", "PICTURE", "--preset", "hi3d"], "--preset hi3d needs --weights: a folder that `turntable convert`", 1),
    (["--image", "PICTURE", "--preset", "hi3d", "--weights", "WEIGHTS"],
     "holds weights of videomv that start from a text, which --preset hi3d cannot use from a picture; take --preset "
     "videomv-text", 1),
    (["--text", "a", "--preset", "tiny", "--weights", "WEIGHTS"], "--preset tiny has random weights: leave --weights", 1),
    (["--text", "a", "--preset", "videomv-text", "--weights", "FILE"],
     "in a single file, expected a folder of Turntable's weights; make one with `turntable convert", 1),
    (["--image", "PICTURE", "--preset", "hi3d", "--weights", "FILE"],
     "which preset hi3d has no use for; take preset videomv-text", 1),
    (["--text", "a", "--preset", "videomv-text", "--weights", "no such"], "no such: no such file or folder, and no hub", 1),
    (["--text", "a", "--preset", "tiny", "--views", "7"], "--views 7: these weights know 24 views", 1),
    (["--image", "nothing.png", "--preset", "tiny"], "nothing.png", 1),
    (["--image", "EMPTY", "--preset", "tiny"], "shows nothing but its background; expected one object", 1),
    (["--text", "a", "--preset", "tiny", "--steps", "0"], "--steps must lie between 1 and 1000, got 0", 2),
    (["--text", "a", "--preset", "hi3d", "--weights", "WEIGHTS"], "takes --image, got --text; presets that take --text", 1),
    (["--image", "PICTURE", "--text-to-image", "MODEL", "--preset", "tiny"],
     "--text-to-image paints the picture for a --text, got --image", 2),
    (["--text", "a", "--text-to-image", "MODEL", "--preset", "videomv-text", "--weights", "WEIGHTS"],
     "--text-to-image needs a preset that starts from a picture, got --preset videomv-text, which starts from text alone; "
     "leave --text-to-image, or take --preset videomv-image or hi3d or mini or mini-hi3d or tiny or tiny-hi3d", 1),
    (["--image", "PICTURE", "--preset", "tiny-hi3d", "--splats", "feed-forward"],
     "--splats feed-forward needs a reconstructor, got --preset tiny-hi3d, which has none; take --splats fit, or --preset "
     "videomv-text or videomv-image or mini or tiny", 1),
    (["--text", "a", "--preset", "videomv-text", "--weights", "WITHOUT", "--splats", "feed-forward"],
     "without: --splats feed-forward needs a reconstructor, found text_encoder, unet, vae alone; take --splats fit, or add "
     "one to the folder with `turntable convert`", 1),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "words", "status"), BAD, ids=[" ".join(case[0]) for case in BAD])
def test_bad_requests_end_in_one_line_and_leave_nothing(
    arguments: list[str], words: str, status: int, picture: Path, weights: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    empty, without = tmp_path / "empty.png", tmp_path / "without"
    Image.new("RGB", (100, 100), "white").save(empty)
    index = read_index(weights)
    without.mkdir()
    components = {name: kind for name, kind in index.components.items() if name != "reconstructor"}
    write_index(without, replace(index, components=components))
    names = {
        "PICTURE": picture,
        "WEIGHTS": weights,
        "FILE": next((weights / "unet").glob("*.safetensors")),
        "EMPTY": empty,
        "WITHOUT": without,
    }
    given = [str(names.get(word, word)) for word in arguments]
    out = tmp_path / "out"
    with kept():
        found = main(["generate", *given, "--out", str(out), "--threads", "2", "--device", "cpu"])
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert (found, len(lines), said.out) == (status, 1, ""), said.err
    assert words in lines[0]
    assert "unexpected" not in lines[0]
    assert not out.exists() or not list(out.iterdir())
