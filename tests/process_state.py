"""What a command sets for its whole process, kept from the tests beside it; and Ctrl-C for children of tests."""

import contextlib
import logging
import signal
from collections.abc import Iterator

from engine.command_line import LEVELS


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Put back the log (pytest's own handlers, which a command would close) and what SIGTERM does."""
    log = logging.getLogger()
    handlers, level, names = log.handlers[:], log.level, {number: logging.getLevelName(number) for number in LEVELS}
    handler = signal.getsignal(signal.SIGTERM)
    log.handlers[:] = []
    try:
        yield
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)
        for number, name in names.items():
            logging.addLevelName(number, name)
        signal.signal(signal.SIGTERM, handler)


def hear_ctrl_c() -> None:
    """For `preexec_fn`: what a shell starts in the background ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
