"""What both Objaverse packages need: their chatter kept off stdout, their downloads kept from hanging for ever."""

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress

from render_farm.errors import RunError

SILENCE_S = 60.0
"""A server that says nothing for so long is given up."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
"""The disk's fault: every other object would fail as well."""


@contextmanager
def quietly() -> Iterator[None]:
    """Send to stderr what the packages and the processes that they start print, and give their sockets a time limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE_S)
    try:
        with redirect_stdout(sys.stderr), _descriptor_to_stderr():
            yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def _descriptor_to_stderr() -> Iterator[None]:
    """Children that are started anew do not know `sys.stdout`, only the descriptor."""
    if sys.__stdout__ is not None:
        with suppress(OSError, ValueError):  # closed, or no file at all: nothing is lost
            sys.__stdout__.flush()
    try:
        kept = os.dup(1)
    except OSError:  # a process without stdout
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def raise_if_disk(error: BaseException) -> None:
    """Raise RunError where a download failed because of the disk: the next would fail as well."""
    if isinstance(error, OSError) and error.errno in FULL:
        raise RunError(f"cannot store what is fetched: {error.strerror}: {error.filename}; make room, or choose another "
                       "folder") from error  # fmt: skip


def reason(error: BaseException) -> str:
    """One line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
