"""What the project's commands share: from arguments to an exit status, how much is said, the version.

Exit status: 0 something was produced (or was there already), 1 failure, 2 usage, 130 stopped by Ctrl-C or SIGTERM,
141 nobody reads stdout any more.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar

import tyro

from engine.errors import TurntableError

log = logging.getLogger(__name__)

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_UNREAD = 1, 2, 130, 128 + signal.SIGPIPE
ROOMS = ("engine", "render_farm")
LEVELS = {logging.DEBUG: "debug:", logging.INFO: "info:", logging.WARNING: "warning:", logging.ERROR: "error:"}
PLAIN_FLAGS = (
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
"""--json without --no-json, INT instead of {None}|INT, and positional arguments by their own names."""

T = TypeVar("T")
Unset = Annotated[T | None, tyro.conf.arg(help_behavior_hint="")]
"""A flag that stands for nothing unless it is given: its help says in words what then happens."""
Several = Annotated[tuple[T, ...], tyro.conf.arg(help_behavior_hint="")]
"""A flag with any number of values, as a rule none."""


@dataclass(frozen=True)
class Talk:
    """How much is said."""

    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Say more: tracebacks and the words of child processes among it."""
    quiet: Annotated[bool, tyro.conf.arg(aliases=["-q"])] = False
    """Say nothing but errors."""


@dataclass(frozen=True)
class Answer:
    """What a command has to say when its work is done."""

    text: str
    """For stdout, without the last line's end; nothing is said if it is empty."""
    status: int = 0
    """Exit status."""


def run_command_line(
    commands: Any,
    perform: Callable[[Any], Answer],
    arguments: Sequence[str] | None,
    *,
    program: str,
    description: str,
    stopped: str,
) -> int:
    """Run one command line and return its exit status.

    Args:
        commands: dataclass, or union of such, that tyro parses; each has `talk: Talk`.
        perform: does what such a dataclass asks for.
        arguments: the command line; None: this process's.
        program: as it is typed.
        description: for --help.
        stopped: what is true after Ctrl-C, in one line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        return _say(Answer(f"{program} {product_version()}"))
    command = tyro.cli(commands, prog=program, description=description, args=given, config=PLAIN_FLAGS)
    return carry_out(command, perform, stopped)


def carry_out(command: Any, perform: Callable[[Any], Answer], stopped: str) -> int:
    """Do what a command asks for, say what came of it, and return the exit status; see `run_command_line`."""
    set_up_logging(command.talk)
    end_politely_on_sigterm()
    try:
        return _say(perform(command))
    except KeyboardInterrupt:
        log.error("stopped: %s", stopped)
        return EXIT_INTERRUPTED
    except TurntableError as error:
        log.error("%s", error)
        return EXIT_FAILURE
    except ValueError as error:  # a setting out of its range
        log.debug("the traceback:", exc_info=True)
        log.error("%s", error)
        return EXIT_USAGE
    except Exception as error:  # the outermost frame: whatever is left is a bug, to be told in one line all the same
        log.debug("the traceback:", exc_info=True)
        log.error("unexpected %s: %s; this is a bug, see the traceback with -v", type(error).__name__, error)
        return EXIT_FAILURE


def _say(answer: Answer) -> int:
    """Write to stdout, and return the exit status. `| head` may have closed it: that is no error of ours."""
    try:
        sys.stdout.write(f"{answer.text}\n" if answer.text else "")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer is flushed once more at exit: it must go somewhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    return answer.status


def set_up_logging(talk: Talk) -> None:
    """Send the log to stderr: everything, or from info, or errors alone. Of other people's libraries, warnings at most."""
    level = logging.DEBUG if talk.verbose else logging.ERROR if talk.quiet else logging.INFO
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name.split(".")[0] in ROOMS)
    logging.basicConfig(level=level, handlers=[handler], format="%(levelname)s %(message)s", force=True)
    for number, name in LEVELS.items():
        logging.addLevelName(number, name)


def end_politely_on_sigterm() -> None:
    """Make SIGTERM end a command as Ctrl-C does: children go, temporary files go."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def product_version() -> str:
    """Return the installed version of the distribution."""
    try:
        return version("turntable3d")
    except PackageNotFoundError:
        return "(not installed)"
