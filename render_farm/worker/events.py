"""What the child tells its parent: one JSON object a line, on what was stdout when it started."""

import json
import os
import sys
from typing import Any


class WorkerError(Exception):
    """The object cannot be rendered; `reason` is one of render_farm.errors.Reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Events:
    """Takes stdout for itself and points descriptor 1 to stderr, since Blender's C code prints to it as it likes."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def send(self, event: str, **fields: Any) -> None:
        """Send one event."""
        self._stream.write(json.dumps({"event": event, **fields}) + "\n")
        self._stream.flush()
