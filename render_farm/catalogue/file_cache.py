"""What was found out about files, so that a second scan of a million of them is quick. Only a cache: may be removed."""

import logging
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One file as it was: sha256, and why it is refused (both empty where all is well)."""

    sha256: str
    reason: str = ""
    message: str = ""


class FileCache:
    """(path, size, modification time, what was checked) -> Finding, in SQLite. Used by one thread."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open(path)
        except sqlite3.DatabaseError:  # damaged by a crash or a full disk: it is only a cache
            if path is None:
                raise
            path.unlink()
            self._open(path)

    def _open(self, path: Path | None) -> None:
        self._database = sqlite3.connect(path or ":memory:", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=OFF")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, checks TEXT, "
            "sha256 TEXT, reason TEXT, message TEXT)"
        )

    def find(self, path: str, size: int, mtime_ns: int, checks: str) -> Finding | None:
        """Return what is known, if the file has not changed since."""
        try:
            row = self._database.execute(
                "SELECT sha256, reason, message FROM files WHERE path=? AND size=? AND mtime_ns=? AND checks=?",
                (path, size, mtime_ns, checks),
            ).fetchone()
        except sqlite3.DatabaseError:  # damaged farther in
            return None
        return None if row is None else Finding(*row)

    def keep(self, rows: Iterable[tuple[str, int, int, str, Finding]]) -> None:
        """Store findings of (path, size, mtime_ns, checks), in one transaction."""
        try:
            self._database.execute("BEGIN")
            self._database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(path, size, mtime, checks, f.sha256, f.reason, f.message) for path, size, mtime, checks, f in rows],
            )
            self._database.execute("COMMIT")
        except sqlite3.DatabaseError as error:  # a full disk, damage
            LOG.warning("what was found out about files is not kept: %s", error)
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._database.close()
