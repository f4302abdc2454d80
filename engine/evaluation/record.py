"""What an evaluation has measured so far: a file of JSON lines that grows by one whole line a measurement.

A measurement is found again by object, subject (what was measured), part, and the key of everything it depends on; so
a rerun goes on, and one with other settings measures anew without throwing away what was there.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EvaluationError, TurntableError

FILE = "measurements.jsonl"


@dataclass(frozen=True)
class Measurement:
    """One line."""

    uid: str
    """The object."""
    of: str
    """What was measured: a variant, a baseline, the true views."""
    part: str
    """Which figures: views, cross-view, ..."""
    key: str
    """Fingerprint of all that they depend on."""
    seconds: float
    """How long it took."""
    figures: dict[str, Any]
    """JSON-able; {"failed": why} where nothing can be measured."""


class Record:
    """The lines, in memory and on disk."""

    def __init__(self, folder: Path) -> None:
        """Read what is there; a last line that was cut off is taken away. Raises EvaluationError for a broken file."""
        self.path = folder / FILE
        self._found: dict[tuple[str, str, str, str], Measurement] = {}
        if self.path.is_file():
            self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self._keep(Measurement(**json.loads(line)))
            except (ValueError, TypeError) as error:
                raise EvaluationError(
                    f"{self.path}: line {number} is no measurement ({error}); delete the line, or take another --out"
                ) from None
        if len(whole) < len(data):
            os.truncate(self.path, len(whole))

    def _keep(self, measurement: Measurement) -> None:
        self._found[measurement.uid, measurement.of, measurement.part, measurement.key] = measurement

    def find(self, uid: str, of: str, part: str, key: str) -> Measurement | None:
        """Return a measurement if it has been made."""
        return self._found.get((uid, of, part, key))

    def add(self, measurement: Measurement) -> None:
        """Append a line and bring it to the disk. Raises TurntableError when the file system refuses."""
        line = json.dumps(measurement.__dict__, default=float) + "\n"
        try:
            with self.path.open("ab") as file:
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise TurntableError(
                f"cannot write {self.path}: {error.strerror or error}; make room, then go on"
            ) from None
        self._keep(measurement)
