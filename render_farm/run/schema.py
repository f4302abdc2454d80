"""Tables of the scheduler's database, and the values that go in and come out."""

from dataclasses import dataclass

from render_farm.records import ObjectRecord, Task

VERSION = 1
"""Raised when a table changes; the file can then be deleted: staging folders and receipts bring everything back."""

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS task (
        shard TEXT NOT NULL, uid TEXT NOT NULL, position INTEGER NOT NULL,
        document TEXT NOT NULL,               -- the Task as JSON
        state TEXT NOT NULL CHECK (state IN ('pending', 'running', 'finishing', 'staged', 'failed', 'sealed')),
        outcome TEXT CHECK (outcome IN ('done', 'failed')),
        attempts INTEGER NOT NULL DEFAULT 0,  -- that came to an end
        tries INTEGER NOT NULL DEFAULT 0,     -- and those that were interrupted
        host TEXT, pid INTEGER, started REAL, -- the lease: who has it
        record TEXT,                          -- of a failed task: ObjectRecord as JSON; a staged one has a file
        bytes INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (shard, uid))""",
    "CREATE INDEX IF NOT EXISTS task_next ON task (shard, state, tries, position)",
    """CREATE TABLE IF NOT EXISTS attempt (
        id INTEGER PRIMARY KEY, shard TEXT NOT NULL, uid TEXT NOT NULL, number INTEGER NOT NULL, slot INTEGER NOT NULL,
        begun REAL NOT NULL, ended REAL,
        outcome TEXT CHECK (outcome IN ('done', 'failed', 'interrupted')),
        reason TEXT, stage TEXT, message TEXT, detail TEXT,
        wall_s REAL, render_s REAL, handover_s REAL, peak_bytes INTEGER)""",
    "CREATE INDEX IF NOT EXISTS attempt_task ON attempt (shard, uid)",
    "CREATE TABLE IF NOT EXISTS shard (name TEXT PRIMARY KEY, sealed REAL)",
    """CREATE TABLE IF NOT EXISTS session (
        id INTEGER PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, slots INTEGER NOT NULL,
        begun REAL NOT NULL, ended REAL,
        slot_wall_s REAL NOT NULL DEFAULT 0, render_s REAL NOT NULL DEFAULT 0,
        done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0)""",
    "CREATE TABLE IF NOT EXISTS event (id INTEGER PRIMARY KEY, time REAL NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL)",
)


@dataclass(frozen=True)
class Lease:
    """One attempt at one task, ours alone."""

    task: Task
    """What to do."""
    attempt: int
    """Row of the attempt."""
    attempts: int
    """How many came to an end before this one."""


@dataclass(frozen=True)
class Costs:
    """What one attempt took of its slot."""

    wall_s: float = 0.0
    """From the lease to the next lease."""
    render_s: float = 0.0
    """Inside Cycles."""
    handover_s: float = 0.0
    """Waiting for a finisher to take the pictures."""
    peak_bytes: int = 0
    """Of the child."""


@dataclass(frozen=True)
class AttemptCost:
    """What one attempt took of its slot, with whose it was."""

    slot: int
    """Number of the slot."""
    uid: str
    """The object."""
    wall_s: float
    """From the lease to the next lease."""
    render_s: float
    """Inside Cycles."""


@dataclass(frozen=True)
class Counts:
    """How far some shards are."""

    total: int
    """Tasks."""
    done: int
    """With all orbits, staged or sealed."""
    failed: int
    """Without, for good."""
    pending: int
    """Nothing has them."""
    busy: int
    """Running or finishing."""
    bytes: int
    """Of what is done."""


@dataclass(frozen=True)
class Row:
    """One task's place."""

    task: Task
    """What to do."""
    state: str
    """pending, running, finishing, staged, failed or sealed."""
    attempts: int
    """That came to an end."""
    record: ObjectRecord | None
    """Of a failed task."""


@dataclass(frozen=True)
class Session:
    """One scheduler, from its start to its end or to its last sign of life."""

    begun: float
    """Seconds since 1970."""
    ended: float | None
    """Seconds since 1970; a killed session's last note."""
    slots: int
    """How many Blenders."""
    slot_wall_s: float
    """Of all slots together."""
    render_s: float
    """Of it: inside Cycles."""
    done: int
    """Objects."""
    failed: int
    """Objects."""
