"""Finished objects on their way into a shard: a folder each, there whole or not at all.

    RUN/staging/.SHARD.UID.HOST.PID.START.partial/   being written
    RUN/staging/SHARD.UID/                     UID.ORBIT.json, UID.ORBIT.rgba_00.webp, ..., record.json

The name carries shard and uid: an object that is tried again in a later batch has another folder.
"""

import errno
import logging
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import OrbitError, TurntableError
from engine.files import OrbitImages, validate_orbit, write_bytes, write_orbit
from engine.files.atomic import sync_folder
from engine.files.images import Quality
from render_farm.errors import FarmError
from render_farm.records import RECORD_NAME, ObjectRecord, Task, read_record
from render_farm.run.owner import Owner
from render_farm.shards.outputs import make_folder

log = logging.getLogger(__name__)

FOLDER = re.compile(r"(?P<shard>[0-9]+-[0-9]+)\.(?P<uid>[A-Za-z0-9_-]+)")
PARTIAL = re.compile(r"\..+\.(?P<owner>[^.]+\.[^.]+\.[^.]+)\.partial")


@dataclass(frozen=True)
class Staging:
    """The staging folder of one scheduler."""

    folder: Path
    """Where the objects' folders are; made when needed."""

    def path(self, shard: str, uid: str) -> Path:
        """Where an object lies once it is whole."""
        return self.folder / f"{shard}.{uid}"

    def commit(self, record: ObjectRecord, images: tuple[OrbitImages, ...], quality: Quality) -> Path:
        """Write an object's orbits and record, bring them to the disk, and give the folder its name.

        Raises:
            FarmError: disk-full or write-failed; nothing is left behind.
            OrbitError: an orbit is not valid.
        """
        owner = Owner.current()
        final = self.path(record.shard, record.uid)
        partial = self.folder / f".{final.name}.{owner.label}.partial"
        try:
            make_folder(self.folder)
            partial.mkdir()
            begun = time.monotonic()
            for orbit in images:
                write_orbit(partial, orbit, quality=quality)
            record = replace(record, stages={**record.stages, "store_s": time.monotonic() - begun})
            write_bytes(partial / RECORD_NAME, record.to_json().encode())
            sync_folder(partial)
            self.remove(record.shard, record.uid)  # of an attempt that nobody waited for
            partial.rename(final)
            sync_folder(self.folder)
        except OrbitError:
            raise
        except (OSError, TurntableError) as error:
            raise _explain(error, self.folder) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return final

    def remove(self, shard: str, uid: str) -> None:
        """Remove an object's folder, so that no half of it is ever seen."""
        final = self.path(shard, uid)
        if not final.exists():
            return
        owner = Owner.current()
        going = self.folder / f".{final.name}.going.{owner.label}.partial"
        shutil.rmtree(going, ignore_errors=True)
        final.rename(going)
        shutil.rmtree(going)

    def clear_stale(self) -> int:
        """Remove what dead processes left half written or half removed, and return how many."""
        stale = [path for path in self.folder.glob(".*.partial") if not _is_alive(path)]
        for path in stale:
            log.info("removing %s, left by a process that was killed", path.name)
            shutil.rmtree(path, ignore_errors=True)
        return len(stale)

    def find_staged(self) -> list[tuple[str, str]]:
        """Return shard and uid of every object whose folder has its name, sorted."""
        if not self.folder.is_dir():
            return []
        matches = (FOLDER.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted((match["shard"], match["uid"]) for match in matches if match)

    def record(self, task: Task, *, thorough: bool) -> ObjectRecord | None:
        """Return the record of a staged object, or None if it is not there, not whole or not this task's.

        Args:
            task: what was to be rendered.
            thorough: decode every picture, too.
        """
        folder = self.path(task.shard, task.uid)
        try:
            record = read_record(folder)
            if (record.uid, record.key, record.shard) != (task.uid, task.key, task.shard):
                raise OrbitError(f"{folder} was made for {record.uid} {record.key} in {record.shard}")
            for orbit in record.orbits:
                path = folder / f"{task.uid}.{orbit}.json"
                if thorough:
                    validate_orbit(path)
                elif not path.is_file():
                    raise OrbitError(f"{path} is missing")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, OrbitError) as error:
            log.warning("rendering %s again: its staged orbits are not whole: %s", task.uid, error)
            return None
        return record

    def size_bytes(self, shard: str, uid: str) -> int:
        """Return how much a staged object takes."""
        return sum(path.stat().st_size for path in self.path(shard, uid).iterdir())


def _is_alive(partial: Path) -> bool:
    """Whether the process that a temporary folder is named after still runs; its start is rounded to seconds."""
    match = PARTIAL.fullmatch(partial.name)
    if match is None:
        return False
    owner = Owner.from_label(match["owner"])
    return owner is not None and owner.is_alive()


def _explain(error: Exception, folder: Path) -> FarmError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__
    number = cause.errno if isinstance(cause, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        free = shutil.disk_usage(folder).free
        return FarmError(
            "disk-full", f"disk full: cannot write to {folder}, {free} bytes are free; make room", stage="staging"
        )
    if not isinstance(error, OSError):
        return FarmError("write-failed", str(error), stage="staging")
    return FarmError(
        "write-failed", f"cannot write to {folder}: {os.strerror(number or 0)}; is it writable?", stage="staging"
    )
