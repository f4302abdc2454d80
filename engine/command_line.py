"""What the project's commands share: exit codes, logging to stderr, a polite end on SIGTERM, the version."""

import logging
import signal
import sys
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Annotated, NoReturn

import tyro

EXIT_FAILURE, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
Verbose = Annotated[bool, tyro.conf.arg(aliases=["-v"])]
Quiet = Annotated[bool, tyro.conf.arg(aliases=["-q"])]
LEVELS = {logging.DEBUG: "debug:", logging.INFO: "info:", logging.WARNING: "warning:", logging.ERROR: "error:"}


def set_up_logging(verbose: bool, quiet: bool) -> None:
    """Send the log to stderr: everything, or from info, or errors alone."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(message)s", force=True)
    logging.getLogger("numba").setLevel(logging.WARNING)
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
