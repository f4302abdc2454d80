"""The protocol from the parent's side: the events of one job in, what must come next and how soon out. No processes.

Anything but the events of job.py in their order, with this job's key, is refused as `bad-output`: a child that is out of
step could hand over another object's pictures.
"""

from pathlib import Path
from typing import Any

from render_farm.errors import REASONS, FarmError
from render_farm.job import Job
from render_farm.process import Deadline, Event
from render_farm.spec import Execution

IMPORTED_FACTS = {"scale": (int, float), "centre": (list,), "triangles": (int,), "objects": (int,), "warnings": (list,)}
"""Without these an `imported` event is of no use."""


class Conversation:
    """What the events of one job have told so far."""

    def __init__(self, job: Job, execution: Execution, factor: float, hello: Event) -> None:
        """Begin. `factor` is on all deadlines; `hello` is empty for a child that has not come up yet."""
        self.job = job
        self.hello: Event = hello
        self.imported: Event = {}
        self.done: Event = {}
        self.begun = False
        """The child has taken the job."""
        self.refusal: FarmError | None = None
        """The child's answer, if the object cannot be rendered."""
        self.render_s = self.write_s = 0.0
        self._execution, self._factor = execution, factor
        self._missing = {(orbit.name, view.index): Path(view.path) for orbit in job.orbits for view in orbit.views}
        self._total = len(self._missing)

    @property
    def ended(self) -> bool:
        """The child has answered."""
        return bool(self.done) or self.refusal is not None

    @property
    def stage(self) -> str:
        """What the child is doing, in words."""
        if not self.hello:
            return "starting Blender"
        if not self.begun:
            return "taking the job"
        if not self.imported:
            return "importing"
        if not self._missing:
            return "finishing"
        orbit, index = next(iter(self._missing))
        return f"rendering {orbit} view {index}"

    @property
    def deadline(self) -> Deadline:
        """What must come next."""
        limits, stage = self._execution, self.stage
        if not self.begun:
            return Deadline(stage, limits.start_timeout_s * self._factor)
        if not self.imported:
            return Deadline(stage, limits.import_timeout_s * self._factor)
        is_first = len(self._missing) == self._total
        seconds = limits.first_view_timeout_s if is_first else limits.view_timeout_s
        silence_s = limits.heartbeat_timeout_s * self._factor if self._missing else None
        return Deadline(stage, seconds * self._factor, silence_s)

    def paths(self) -> dict[str, tuple[Path, ...]]:
        """The EXRs by orbit, in order."""
        return {orbit.name: tuple(Path(view.path) for view in orbit.views) for orbit in self.job.orbits}

    def take(self, event: Event) -> None:
        """Take in one event.

        Raises:
            FarmError: `bad-output`: it is not what the protocol allows here.
        """
        kind = event["event"]
        if kind == "hello":
            self._take_hello(event)
        elif kind == "error":
            self._take_error(event)
        else:
            self._check_key(event)
            if kind == "begin" and not self.begun:
                self.begun = True
            elif kind == "imported" and self.begun and not self.imported:
                self._take_imported(event)
            elif kind == "view" and self.imported:
                self._take_view(event)
            elif kind == "done" and self.imported and not self._missing:
                self._take_done(event)
            else:
                raise self._bad(f"{kind!r}", event)

    def _take_hello(self, event: Event) -> None:
        if self.hello or not all(isinstance(event.get(key), str) for key in ("blender", "device")):
            raise self._bad("'hello'", event)
        self.hello = event

    def _take_error(self, event: Event) -> None:
        if event.get("key"):  # before a job is taken there is none
            self._check_key(event)
        reason = event.get("reason")
        if not isinstance(reason, str) or reason not in REASONS:
            raise self._bad("an error of no known reason", event)
        stage = event.get("stage")
        self.refusal = FarmError(reason, str(event.get("message")), stage=str(stage) if stage else self.stage)

    def _take_imported(self, event: Event) -> None:
        for name, kinds in IMPORTED_FACTS.items():
            if not isinstance(event.get(name), kinds):
                raise self._bad(f"'imported' without {name}", event)
        self.imported = event

    def _take_view(self, event: Event) -> None:
        orbit, index = event.get("orbit"), event.get("index")
        place = (orbit, index) if isinstance(orbit, str) and isinstance(index, int) else ("", -1)
        if place not in self._missing or event.get("path") != str(self._missing[place]):
            raise self._bad("a view that was not asked for", event)
        del self._missing[place]
        self.render_s += self._seconds(event, "render_s")
        self.write_s += self._seconds(event, "write_s")

    def _take_done(self, event: Event) -> None:
        if not isinstance(event.get("stages"), dict):
            raise self._bad("'done' without stages", event)
        for name in ("cpu_s", "peak_bytes", "rss_bytes"):
            self._seconds(event, name)
        self.done = event

    def _seconds(self, event: Event, name: str) -> float:
        value: Any = event.get(name)
        if not isinstance(value, int | float):
            raise self._bad(f"{event['event']!r} without {name}", event)
        return float(value)

    def _check_key(self, event: Event) -> None:
        if event.get("key") != self.job.key:
            raise self._bad(f"{event['event']!r} of job {event.get('key')!r}, expected {self.job.key!r}", event)

    def _bad(self, what: str, event: Event) -> FarmError:
        text = str(dict(event))
        return FarmError("bad-output", f"Blender's child is out of step: it sent {what} while {self.stage}",
                         text[:2000], self.stage)  # fmt: skip
