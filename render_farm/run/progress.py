"""What a scheduler tells while it works, and at its end. Values, and a rate; no threads."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

WINDOW_S, WINDOW_OBJECTS = 600.0, 200
"""The rate is that of the last objects, not older than this: it follows the machine, not the first minutes."""


@dataclass(frozen=True)
class SlotView:
    """One slot, now."""

    uid: str
    """What it works on; empty when idle."""
    stage: str
    """What its Blender does: 'rendering ring24 view 3'."""
    stage_s: float
    """For how long."""
    rss_bytes: int
    """Resident memory of its Blender and all that one started."""


@dataclass(frozen=True)
class Snapshot:
    """How far a run is."""

    done: int
    """Objects with all their orbits, earlier sessions included."""
    failed: int
    """Objects that have none, for good."""
    total: int
    """Objects of the shards at hand."""
    rate_per_h: float
    """Objects an hour, lately; 0 until the first."""
    eta_s: float | None
    """Seconds until the last object; None until there is a rate."""
    bytes: int
    """Of the orbits so far."""
    finishing: int
    """Objects rendered and not yet staged."""
    shards_sealed: int
    """Of the shards at hand."""
    shards: int
    """At hand."""
    paused: str
    """Why nothing is started; empty as a rule."""
    slots: tuple[SlotView, ...]
    """Each slot, in order."""


@dataclass(frozen=True)
class Summary:
    """What a session of a scheduler did, and where the run stands after it."""

    done: int
    """Objects with all their orbits, earlier sessions included."""
    failed: int
    """Objects that have none, for good."""
    total: int
    """Objects of the shards at hand."""
    rendered: int
    """Objects done in this session."""
    attempts: int
    """Attempts that came to an end in this session."""
    reasons: Mapping[str, int]
    """Failed objects of this session by reason."""
    sealed: int
    """Shards sealed in this session."""
    unsealed: tuple[str, ...]
    """Shards at hand that are not sealed."""
    wall_s: float
    """Of the session."""
    slot_wall_s: float
    """Of all slots together: what could have been spent rendering, pauses for a full disk left out."""
    render_s: float
    """Of it: inside Cycles."""
    handover_s: float
    """Of it: waiting for a finisher."""
    idle_s: float
    """Of it: without a task, at the run's end."""
    stopped: bool
    """Before everything was done."""

    @property
    def render_share(self) -> float:
        """Share of the slots' time that was spent inside Cycles."""
        return self.render_s / self.slot_wall_s if self.slot_wall_s else 0.0


@dataclass
class Rate:
    """Objects an hour over a window of the last ones."""

    begun: float = field(default_factory=time.monotonic)
    """When the first could have begun, monotonic seconds."""
    _ends: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW_OBJECTS))

    def count(self, now: float) -> None:
        """One more object is through."""
        if len(self._ends) == WINDOW_OBJECTS:
            self.begun = self._ends[0]
        self._ends.append(now)

    def per_h(self, now: float) -> float:
        """Objects an hour: those of the window over the time since the one before them."""
        while self._ends and now - self._ends[0] > WINDOW_S:
            self.begun = self._ends.popleft()
        return 3600.0 * len(self._ends) / max(now - self.begun, 1e-3) if self._ends else 0.0
