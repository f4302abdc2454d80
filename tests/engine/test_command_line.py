"""The frame around every command: status, streams, what is said of an end of any kind, and how soon help is there."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Answer, Talk, Unset, run_command_line
from engine.errors import TurntableError
from tests.process_state import hear_ctrl_c, kept

ROOT = Path(__file__).parents[2]
FRAME = """\
import sys
from dataclasses import dataclass, field
from engine.command_line import Answer, Talk, run_command_line
from tyro.conf import OmitArgPrefixes as Flags

@dataclass
class Command:
    talk: Flags[Talk] = field(default_factory=Talk)

def perform(command):
    {body}

sys.exit(run_command_line(Command, perform, [], program="p", description="d", stopped="all is kept"))
"""


@dataclass(frozen=True)
class Command:
    """A command."""

    size: Unset[int] = None
    """A size."""
    json: bool = False
    """As JSON."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    with kept():
        yield


@pytest.mark.parametrize(
    ("flag", "said"), [("-v", "debug: a\ninfo: b\nwarning: c\nwarning: f\n"),
                       ("--no-flag", "info: b\nwarning: c\nwarning: f\n"), ("-q", "")],
)  # fmt: skip
def test_how_much_is_said(capsys: pytest.CaptureFixture[str], flag: str, said: str) -> None:
    def perform(command: Any) -> Answer:
        for name, words in (("render_farm.run", "abc"), ("botocore.credentials", "def")):
            log = logging.getLogger(name)
            log.debug(words[0])
            log.info(words[1])
            log.warning(words[2])
        return Answer("done")

    assert run(perform, *([] if flag == "--no-flag" else [flag])) == 0
    assert capsys.readouterr() == ("done\n", said)


def run(perform: Callable[[Any], Answer], *arguments: str) -> int:
    return run_command_line(
        Command, perform, arguments, program="turntable-x", description="A test.", stopped="all is kept"
    )


def fails(error: BaseException) -> Callable[[Any], Answer]:
    def perform(command: Any) -> Answer:
        raise error

    return perform


def test_the_answer_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda command: Answer(f"size {command.size}"), "--size", "3") == 0
    assert run(lambda command: Answer("bad news", 1)) == 1
    assert capsys.readouterr() == ("size 3\nbad news\n", "")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (TurntableError("a.glb: is broken; mend it"), 1, "error: a.glb: is broken; mend it\n"),
        (ValueError("size must be at least 1, got 0"), 2, "error: size must be at least 1, got 0\n"),
        (KeyboardInterrupt(), 130, "error: stopped: all is kept\n"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'; this is a bug, see the traceback with -v\n"),
    ],
)
def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str], error: BaseException, status: int, said: str) -> None:
    assert run(fails(error), "-q") == status
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x")])
def test_verbose_tells_where(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    run(fails(error), "-v")
    told = capsys.readouterr().err
    assert told.startswith("debug: the traceback:\nTraceback (most recent call last):\n")
    assert "in perform\n" in told
    assert told.splitlines()[-1].startswith("error: ")


def test_help_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(fails(AssertionError()), "--help")
    text = capsys.readouterr().out
    assert "--size INT" in text
    assert "None" not in text
    assert "--no-json" not in text


def frame(body: str) -> list[str]:
    return [sys.executable, "-c", FRAME.format(body=body)]


def test_nobody_reads() -> None:
    child = subprocess.Popen(
        frame("sys.stdin.read(); return Answer('much ' * 100_000)"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    _, said = child.communicate(b"", timeout=60)
    assert (child.returncode, said) == (141, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_politely(number: signal.Signals) -> None:
    child = subprocess.Popen(
        frame("print('up', flush=True); sys.stdin.read()"), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, cwd=ROOT,
        preexec_fn=hear_ctrl_c,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    os.kill(child.pid, number)
    _, said = child.communicate(timeout=60)
    assert (child.returncode, said) == (130, "error: stopped: all is kept\n")


@pytest.mark.parametrize("module", ["engine.cli", "render_farm.cli"])
@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["render", "--nonsense"]])
def test_what_needs_no_work_imports_none(module: str, arguments: list[str]) -> None:
    # numpy, trimesh and pyarrow took a second and a half of every --help
    code = (
        f"import sys\nfrom {module} import main\ntry:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        "sys.exit(', '.join({'numpy', 'pyarrow', 'trimesh', 'scipy', 'pandas', 'jinja2'} & set(sys.modules)) or 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
