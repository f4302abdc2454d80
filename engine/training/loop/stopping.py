"""A clean stop: SIGTERM and Ctrl-C are heard, the step that is being taken is finished, then the run is stored."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger(__name__)

PATIENCE = 3
"""Signals after which the process ends at once: torchrun and a terminal send two for one Ctrl-C."""


class Stop:
    """Whether this process was told to stop."""

    def __init__(self) -> None:
        """Nobody has yet."""
        self.told = 0

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take a signal down."""
        self.told += 1
        if self.told >= PATIENCE:
            raise KeyboardInterrupt
        if self.told == 1:
            log.warning("stopping: finishing this step and writing a checkpoint (send twice more to end at once)")


@contextmanager
def listening() -> Iterator[Stop]:
    """Listen to SIGTERM and SIGINT; afterwards they mean what they did before."""
    stop = Stop()
    before = {number: signal.signal(number, stop.hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
