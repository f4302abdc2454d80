"""Where the time of one object goes, and what is being done right now."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("reset", "import", "measure", "materials", "setup", "render", "write")
"""Every stage has its seconds, as NAME_s, even where it was never entered."""


class Stages:
    """One clock for each stage. Read by the heartbeat's thread, written by the main one."""

    def __init__(self) -> None:
        self.now = "waiting"
        """In words: 'importing', 'rendering ring24 view 3'."""
        self.seconds: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        """Begin an object."""
        self.seconds = {f"{name}_s": 0.0 for name in NAMES}

    @contextmanager
    def stage(self, name: str, words: str) -> Iterator[None]:
        """Count the time of a block; after an error `now` still says where it was."""
        self.now = words
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[f"{name}_s"] += time.perf_counter() - started
