"""Memory over time: what each slot's Blender holds, noted while a scheduler works, read back for the report."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from render_farm.report import RunFacts
from render_farm.run.folder import Run
from render_farm.run.progress import Snapshot
from render_farm.run.store import Store

EVERY_S = 5.0


class MemoryLog:
    """A file of JSON lines: seconds since 1970, objects done, bytes of each slot. It outlives the scheduler."""

    def __init__(self, path: Path) -> None:
        self._path, self._next = path, 0.0

    def note(self, snapshot: Snapshot) -> None:
        """Write a line, at most every few seconds."""
        now = time.time()
        if now >= self._next:
            line = {
                "time": now,
                "objects": snapshot.done + snapshot.failed,
                "rss": [s.rss_bytes for s in snapshot.slots],
            }
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            self._next = now + EVERY_S


def read_memory(path: Path) -> Mapping[str, list[tuple[float, float]]]:
    """Return slot -> (seconds since the first line, bytes). A line that was cut off is passed over."""
    found: dict[str, list[tuple[float, float]]] = {}
    if not path.exists():
        return found
    begun: float | None = None
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:  # the last line of a killed scheduler
            continue
        begun = line["time"] if begun is None else begun
        for slot, rss in enumerate(line["rss"]):
            if rss:
                found.setdefault(f"worker {slot}", []).append((float(line["time"] - begun), float(rss)))
    return found


def run_facts(run: Run, workers: int, cores: int) -> RunFacts:
    """Return what the report wants to know of the machine: time of all sessions, workers, memory."""
    if not run.store_path.exists():
        return RunFacts(workers=workers, cores=cores)
    store = Store(run.store_path, run.spec)
    try:
        # a clock that is set back during a session must not take from the others
        wall_s = sum(max(0.0, s.ended - s.begun) for s in store.sessions() if s.ended is not None)
    finally:
        store.close()
    return RunFacts(wall_s, workers, cores, read_memory(run.folder / "memory.jsonl"))
