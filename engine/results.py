"""The output folder of a generation: stages that leave files, and report.json, which knows which files are whole.

A stage is done when the report holds its fingerprint (its settings, its input's fingerprint) and its files have the
recorded hashes. Files are written under a temporary name and moved; the report is written last. So a run that is
killed anywhere leaves at most files that nobody trusts, and the next run does them again.
"""

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import TurntableError
from engine.files import clear_partials, write_bytes
from engine.measure import measured

FORMAT = "turntable-result/1"
REPORT = "report.json"

log = logging.getLogger(__name__)


def fingerprint(content: Mapping[str, Any]) -> str:
    """Return a short hash of JSON-able content, equal for equal content."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process; raises TurntableError if another one writes there. The kernel frees it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TurntableError(
                f"{folder}: another turntable is writing here; wait for it or take another --out"
            ) from None
        yield
    finally:
        os.close(descriptor)


class ResultFolder:
    """A result folder and its report."""

    def __init__(self, folder: Path) -> None:
        """Open or begin a result. Raises TurntableError if the folder holds something else or its report is broken."""
        self.folder = folder
        self.report: dict[str, Any] = {"format": FORMAT, "stages": {}}
        self._redone = False
        path = folder / REPORT
        if path.exists():
            self.report = _read_report(path)

    def stage(
        self, name: str, settings: Mapping[str, Any], action: Callable[[], Sequence[str]], *, again: bool = False
    ) -> str:
        """Run a stage unless its result is there; return its fingerprint.

        Args:
            name: key in the report.
            settings: JSON-able; whatever the result depends on, the input's fingerprint included.
            action: makes the files and returns their names.
            again: run it even if the result is there.
        """
        key = fingerprint({"stage": name, **settings})
        record = self.report["stages"].get(name)
        if not again and record and record["fingerprint"] == key and self._whole(record):
            log.info("%s: already there", name)
            return key
        if record and record["fingerprint"] != key:
            log.info("%s: settings or input have changed since the last run: doing it again", name)
        self.report["stages"].pop(name, None)
        with measured() as cost:
            names = action()
        self.report["stages"][name] = {
            "fingerprint": key,
            "seconds": round(cost.seconds, 2),
            "peak_memory_mib": round(cost.peak_memory_mib),
            "files": {file: sha256_of(self.folder / file) for file in names},
        }
        self.save()
        return key

    def _whole(self, record: Mapping[str, Any]) -> bool:
        paths = {self.folder / name: digest for name, digest in record["files"].items()}
        return all(path.is_file() and sha256_of(path) == digest for path, digest in paths.items())

    def save(self) -> None:
        """Write report.json (temporary name, then moved)."""
        write_bytes(self.folder / REPORT, (json.dumps(self.report, indent=1, default=str) + "\n").encode())


@contextmanager
def open_result(folder: Path) -> Iterator[ResultFolder]:
    """Begin or continue a result in a folder and hold it, clearing what a killed run left half-written.

    Raises TurntableError if the folder holds files that are not a result's, or another process writes there.
    """
    if folder.exists() and not folder.is_dir():
        raise TurntableError(f"{folder} is a file; --out must name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        clear_partials(folder)
        names = sorted(path.name for path in folder.iterdir())
        if names and REPORT not in names and not all(_of_the_first_stage(name) for name in names):
            raise TurntableError(f"{folder} holds {names[0]} and no {REPORT}: give --out an empty or a new folder")
        yield ResultFolder(folder)


def _of_the_first_stage(name: str) -> bool:
    """Whether a run that was killed before its first report may have left this file."""
    return name == "orbit.json" or any(f".{kind}_" in name for kind in ("rgba", "depth", "normal", "albedo"))


def read_report(folder: Path) -> dict[str, Any]:
    """Return a finished result's report. Raises TurntableError if the folder has none."""
    path = folder / REPORT
    if not path.is_file():
        raise TurntableError(f"{folder} has no {REPORT}: it is not a result; make one with `turntable reconstruct`")
    return _read_report(path)


def _read_report(path: Path) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except ValueError as error:
        raise TurntableError(f"{path} is not JSON ({error}): delete it and run again") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT or not isinstance(report.get("stages"), dict):
        raise TurntableError(f'{path} is not a report of a result (format "{FORMAT}"): give --out another folder')
    return report
