"""The command in this process, and in one of its own: what it answers, and what it says."""

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from render_farm import cli
from tests.process_state import hear_ctrl_c, kept

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-m", "render_farm.cli")
SPEC_FLAGS = ("--views", "8", "--elevation-deg", "20", "--size", "32", "--samples", "1")
WORK_FLAGS = ("--workers", "1", "--threads", "1")
VIEWS = 8


@dataclass(frozen=True)
class Ended:
    """How a command line ended."""

    status: int
    """Exit status."""
    out: str
    """stdout."""
    err: str
    """stderr."""


def call(*arguments: str | Path) -> Ended:
    """Run a command line in this process: importing everything anew takes longer than most commands."""
    out, err = io.StringIO(), io.StringIO()
    with kept(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as ended:  # help, and errors of usage
            status = int(ended.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


def call_outside(*arguments: str | Path) -> Ended:
    """Run a command line as a user does."""
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """Start a command line that can be interrupted."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
