"""The command: exit status, what goes to stdout and what to stderr, Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from render_farm import cli
from tests.process_state import hear_ctrl_c

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "render_farm.cli"]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert re.fullmatch(r"turntable-farm (\d+\.\d+\.\d+\S*|\(not installed\))\n", capsys.readouterr().out)


def test_help_names_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert "render" in text
    assert "example" in text


def test_usage_error_is_2() -> None:
    done = run("render")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--out" in done.stderr


def test_setting_out_of_range_is_2(box_glb: Path, tmp_path: Path) -> None:
    done = run("render", str(box_glb), "--out", str(tmp_path / "out"), "--samples", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: samples must lie between 1 and 65536, got 0\n"
    assert not (tmp_path / "out").exists()


def test_failure_is_1_and_one_line(tmp_path: Path) -> None:
    done = run("render", str(tmp_path / "no.glb"), "--out", str(tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: {tmp_path}/no.glb: there is no such file; check the path [missing-file]\n"
    assert list(tmp_path.iterdir()) == []


def test_example_must_be_a_glb(tmp_path: Path) -> None:
    done = run("example", "--out", str(tmp_path / "a.obj"))
    assert done.returncode == 1
    assert done.stderr == "error: a.obj: the example is a .glb, found '.obj'; name it so [unknown-format]\n"


@pytest.mark.blender
def test_render_prints_the_json(box_glb: Path, tmp_path: Path) -> None:
    arguments = ["render", str(box_glb), "--out", str(tmp_path / "out"), "--size", "16", "--samples", "1", "--uid", "b",
                 "--elevation-deg", "20", "--license", "CC0-1.0"]  # fmt: skip
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path}/out/b.ring24.json\n"
    assert "24 views in" in done.stderr
    again = run(*arguments)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert "nothing to do" in again.stderr
    assert run(*arguments, "-q").stderr == ""


@pytest.mark.blender
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_clean(box_glb: Path, tmp_path: Path, number: signal.Signals) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, "render", str(box_glb), "--out", str(out), "--size", "1024", "--samples", "4096"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=dict(os.environ),
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(out.glob(".*.partial/**/job.json")):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    assert stderr == "error: stopped: nothing unfinished was left behind; the same command goes on\n"
    assert not out.exists()
