"""What the scheduler of one machine remembers, in SQLite: tasks, attempts, shards, sessions, events.

    pending -> running -> finishing -> staged --+
       ^          |           |                 +--> sealed      (outcome done or failed)
       +----------+-----------+------> failed --+

Every method is one transaction. WAL with synchronous=NORMAL: a killed process loses nothing, since what it wrote is with
the kernel; a power cut may lose the last transactions, never the file's soundness. That is enough because the files are
the truth: objects are staged by an fsynced rename and shards committed by a receipt, and `recover` finds both. FULL
would cost an fsync for each of the six steps of every object and save nothing.

Never put it on a network file system: WAL needs shared memory.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from render_farm.errors import RunError
from render_farm.records import ObjectRecord, Provenance, Refusal, Task
from render_farm.run.owner import Owner
from render_farm.run.schema import SCHEMA, VERSION, AttemptCost, Costs, Counts, Lease, Row, Session
from render_farm.spec import RenderSpec, task_seed

BUSY_TIMEOUT_S = 30.0


class Store:
    """The database of one scheduler. Safe to share between threads."""

    def __init__(self, path: Path, spec: RenderSpec) -> None:
        """Open or make it.

        Raises:
            RunError: it is of another version or of another spec, or no database.
        """
        self.path, self.spec = path, spec
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"{path} cannot be used as the farm's state ({error}); delete it: what is staged and sealed is "
                           "found again") from error  # fmt: skip

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        with self._write() as db:
            db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            for name, value in (("version", str(VERSION)), ("spec", self.spec.digest)):
                found = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
                if found is None:
                    db.execute("INSERT INTO meta VALUES (?, ?)", (name, value))
                elif found[0] != value:
                    raise RunError(f"{self.path} is of {name} {found[0]}, expected {value}; delete it: what is staged and "
                                   "sealed is found again")  # fmt: skip
            for statement in SCHEMA:
                db.execute(statement)

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _read(self, query: str, values: Sequence[object] = ()) -> list[tuple]:
        with self._lock:
            return self._db.execute(query, values).fetchall()

    # -------------------------------------------------------------------------------------------- tasks in
    def register(self, tasks: Iterable[Task]) -> int:
        """Take in tasks that are not known yet and return how many. Refused ones are failed at once."""
        added = 0
        with self._write() as db:
            for position, task in enumerate(tasks):
                record = None if task.refusal is None else refused(task, self.spec, task.refusal)
                db.execute("INSERT OR IGNORE INTO shard (name) VALUES (?)", (task.shard,))
                added += db.execute(
                    "INSERT INTO task (shard, uid, position, document, state, outcome, record) VALUES (?,?,?,?,?,?,?) "
                    "ON CONFLICT (shard, uid) DO NOTHING",
                    (task.shard, task.uid, position, _document(task),
                     *(("pending", None, None) if record is None else ("failed", "failed", record.to_json()))),
                ).rowcount  # fmt: skip
        return added

    def retry(self, reasons: Collection[str] | None = None) -> int:
        """Put failed tasks of shards that are not sealed back to pending; None: for all reasons. Returns how many.

        Tasks that were refused before Blender stay: their file is what it is.
        """
        again = []
        for shard, uid, document, text in self._read(
            "SELECT shard, uid, document, record FROM task WHERE state = 'failed'"
        ):
            refusal = ObjectRecord.from_json(text).refusal
            if json.loads(document)["refusal"] is None and refusal is not None:
                again += [(shard, uid)] if reasons is None or refusal.reason in reasons else []
        with self._write() as db:
            db.executemany(
                "UPDATE task SET state = 'pending', outcome = NULL, record = NULL, tries = 0, attempts = 0 "
                "WHERE shard = ? AND uid = ? AND state = 'failed'", again
            )  # fmt: skip
        return len(again)

    # -------------------------------------------------------------------------------------------- attempts
    def lease(self, shard: str, owner: Owner, slot: int) -> Lease | None:
        """Take the shard's next pending task, if it has one; those tried least come first."""
        with self._write() as db:
            row = db.execute(
                "SELECT uid, document, attempts FROM task WHERE shard = ? AND state = 'pending' "
                "ORDER BY tries, position LIMIT 1", (shard,)
            ).fetchone()  # fmt: skip
            if row is None:
                return None
            uid, document, attempts = row
            db.execute(
                "UPDATE task SET state = 'running', host = ?, pid = ?, started = ? WHERE shard = ? AND uid = ?",
                (owner.host, owner.pid, owner.started, shard, uid),
            )
            cursor = db.execute(
                "INSERT INTO attempt (shard, uid, number, slot, begun) VALUES (?,?,?,?,?)",
                (shard, uid, attempts + 1, slot, time.time()),
            )
            return Lease(_task(document), int(cursor.lastrowid or 0), attempts)

    def finishing(self, lease: Lease) -> None:
        """Its pictures are rendered."""
        with self._write() as db:
            self._move(db, lease, "finishing")

    def staged(self, lease: Lease, size_bytes: int) -> None:
        """It lies whole in the staging folder."""
        with self._write() as db:
            self._move(db, lease, "staged", "done")
            db.execute(
                "UPDATE task SET attempts = attempts + 1, tries = tries + 1, bytes = ? WHERE shard = ? AND uid = ?",
                (size_bytes, lease.task.shard, lease.task.uid),
            )
            _end(db, lease, "done", None)

    def failed(self, lease: Lease, record: ObjectRecord) -> None:
        """It failed for good."""
        with self._write() as db:
            self._move(db, lease, "failed", "failed")
            db.execute(
                "UPDATE task SET attempts = attempts + 1, tries = tries + 1, record = ? WHERE shard = ? AND uid = ?",
                (record.to_json(), lease.task.shard, lease.task.uid),
            )
            _end(db, lease, "failed", record.refusal)

    def again(self, lease: Lease, refusal: Refusal) -> None:
        """It failed, and another attempt may go better."""
        with self._write() as db:
            self._move(db, lease, "pending")
            db.execute(
                "UPDATE task SET attempts = attempts + 1, tries = tries + 1 WHERE shard = ? AND uid = ?",
                (lease.task.shard, lease.task.uid),
            )
            _end(db, lease, "failed", refusal)

    def release(self, lease: Lease, why: str) -> None:
        """It was left, through no fault of its own: the attempt does not count, but others go first."""
        with self._write() as db:
            self._move(db, lease, "pending")
            db.execute(
                "UPDATE task SET tries = tries + 1 WHERE shard = ? AND uid = ?", (lease.task.shard, lease.task.uid)
            )
            db.execute(
                "UPDATE attempt SET ended = ?, outcome = 'interrupted', message = ? WHERE id = ?",
                (time.time(), why, lease.attempt),
            )

    def costs(self, lease: Lease, costs: Costs) -> None:
        """Note what the attempt took of its slot."""
        with self._write() as db:
            db.execute(
                "UPDATE attempt SET wall_s = ?, render_s = ?, handover_s = ?, peak_bytes = ? WHERE id = ?",
                (costs.wall_s, costs.render_s, costs.handover_s, costs.peak_bytes, lease.attempt),
            )

    def attempt_costs(self) -> list[AttemptCost]:
        """Return what every attempt took that came to an end, in the order of their begin."""
        return [AttemptCost(*row) for row in self._read(
            "SELECT slot, uid, wall_s, render_s FROM attempt WHERE wall_s IS NOT NULL ORDER BY begun, id"
        )]  # fmt: skip

    def _move(self, db: sqlite3.Connection, lease: Lease, state: str, outcome: str | None = None) -> None:
        changed = db.execute(
            "UPDATE task SET state = ?, outcome = ? WHERE shard = ? AND uid = ? AND state IN ('running', 'finishing')",
            (state, outcome, lease.task.shard, lease.task.uid),
        ).rowcount
        assert changed == 1, f"{lease.task.uid} is not being worked on"

    # -------------------------------------------------------------------------------------------- repairs
    def take_back(self, owner: Owner) -> list[str]:
        """Put the tasks of dead owners back to pending and return their uids."""
        rows = self._read("SELECT shard, uid, host, pid, started FROM task WHERE state IN ('running', 'finishing')")
        mine = [(row[0], row[1]) for row in rows if (found := Owner(*row[2:])) == owner or not found.is_alive()]
        with self._write() as db:
            for key in mine:
                db.execute("UPDATE task SET state = 'pending', tries = tries + 1 WHERE shard = ? AND uid = ?", key)
                db.execute(
                    "UPDATE attempt SET ended = ?, outcome = 'interrupted', message = 'the scheduler ended' "
                    "WHERE shard = ? AND uid = ? AND outcome IS NULL", (time.time(), *key)
                )  # fmt: skip
        return [uid for _, uid in mine]

    def adopt(self, record: ObjectRecord, size_bytes: int) -> None:
        """Mark as staged what was found whole in the staging folder."""
        with self._write() as db:
            db.execute(
                "UPDATE task SET state = 'staged', outcome = 'done', bytes = ?, attempts = max(attempts, ?), record = NULL "
                "WHERE shard = ? AND uid = ?", (size_bytes, record.attempts, record.shard, record.uid)
            )  # fmt: skip

    def lost(self, shard: str, uid: str) -> None:
        """Put a task back whose staging folder is not there or not whole."""
        with self._write() as db:
            db.execute(
                "UPDATE task SET state = 'pending', outcome = NULL, bytes = 0 WHERE shard = ? AND uid = ? AND state = 'staged'",
                (shard, uid),
            )

    def seal(self, shard: str, records: Sequence[ObjectRecord]) -> None:
        """The shard's receipt is written; its records say what became of each task."""
        with self._write() as db:
            db.execute("UPDATE shard SET sealed = ? WHERE name = ?", (time.time(), shard))
            db.executemany(
                "UPDATE task SET state = 'sealed', outcome = ?, record = ? WHERE shard = ? AND uid = ?",
                [(r.outcome, r.to_json() if r.outcome == "failed" else None, shard, r.uid) for r in records],
            )

    def reopen(self, shard: str) -> None:
        """Forget a shard's seal and all of its tasks' fates: its receipt is gone."""
        tasks = [row.task for row in self.rows(shard)]
        with self._write() as db:
            db.execute("DELETE FROM task WHERE shard = ?", (shard,))
            db.execute("UPDATE shard SET sealed = NULL WHERE name = ?", (shard,))
        self.register(tasks)

    # -------------------------------------------------------------------------------------------- questions
    def open_shards(self) -> list[str]:
        """Return the names of the shards that are not sealed, in order."""
        rows = self._read("SELECT DISTINCT shard FROM task WHERE state != 'sealed' ORDER BY shard")
        return [shard for (shard,) in rows]

    def rows(self, shard: str) -> list[Row]:
        """Return a shard's tasks in their order."""
        found = self._read(
            "SELECT document, state, attempts, record FROM task WHERE shard = ? ORDER BY position", (shard,)
        )
        return [Row(_task(d), s, a, None if r is None else ObjectRecord.from_json(r)) for d, s, a, r in found]

    def state(self, shard: str, uid: str) -> str | None:
        """Return one task's state, or None if it is not known."""
        found = self._read("SELECT state FROM task WHERE shard = ? AND uid = ?", (shard, uid))
        return found[0][0] if found else None

    def is_complete(self, shard: str) -> bool:
        """Whether every task of the shard is staged or failed, so that it can be sealed."""
        found = self._read("SELECT DISTINCT state FROM task WHERE shard = ?", (shard,))
        return bool(found) and {state for (state,) in found} <= {"staged", "failed"}

    def pending(self) -> dict[str, int]:
        """Return how many tasks of each shard are pending."""
        return dict(self._read("SELECT shard, count(*) FROM task WHERE state = 'pending' GROUP BY shard"))

    def shard_sizes(self) -> dict[str, int]:
        """Return how many tasks each shard has."""
        return dict(self._read("SELECT shard, count(*) FROM task GROUP BY shard"))

    def staged_shards(self) -> set[str]:
        """Return the shards with objects marked as staged."""
        return {name for (name,) in self._read("SELECT DISTINCT shard FROM task WHERE state = 'staged'")}

    def sealed_shards(self) -> set[str]:
        """Return the shards that are sealed."""
        return {name for (name,) in self._read("SELECT name FROM shard WHERE sealed IS NOT NULL")}

    def sealed_fates(self) -> dict[str, dict[str, ObjectRecord | None]]:
        """Return the records of failed tasks, None for those that are done, by shard and uid, of the sealed shards.

        Shards are left out whose failures were forgotten when they were sealed, as earlier programs did.
        """
        found: dict[str, dict[str, ObjectRecord | None]] = {}
        for shard, uid, text in self._read(
            "SELECT shard, uid, record FROM task WHERE state = 'sealed' AND shard NOT IN "
            "(SELECT shard FROM task WHERE state = 'sealed' AND outcome = 'failed' AND record IS NULL)"
        ):
            found.setdefault(shard, {})[uid] = None if text is None else ObjectRecord.from_json(text)
        return found

    def counts(self, shards: Collection[str] | None = None) -> Counts:
        """Return how far some shards, or all, are."""
        rows = self._read(
            "SELECT shard, state, outcome, count(*), total(bytes) FROM task GROUP BY shard, state, outcome"
        )
        rows = [row for row in rows if shards is None or row[0] in shards]

        def number(*, outcome: str | None = None, states: tuple[str, ...] = ()) -> int:
            return sum(row[3] for row in rows if row[1] in states or (outcome is not None and row[2] == outcome))

        return Counts(
            sum(row[3] for row in rows), number(outcome="done"), number(outcome="failed"), number(states=("pending",)),
            number(states=("running", "finishing")), int(sum(row[4] for row in rows)),
        )  # fmt: skip

    def failures(self) -> list[tuple[str, str, int]]:
        """Return reason, stage and number of the attempts that failed, most first, tasks of sealed shards included."""
        return self._read(
            "SELECT reason, stage, count(*) AS n FROM attempt WHERE outcome = 'failed' GROUP BY reason, stage ORDER BY n DESC"
        )

    def last_reasons(self, shards: Collection[str]) -> dict[str, int]:
        """Return how many tasks of some shards that are not sealed yet failed for each reason."""
        found: dict[str, int] = {}
        for shard, text in self._read("SELECT shard, record FROM task WHERE state = 'failed'"):
            refusal = ObjectRecord.from_json(text).refusal
            if shard in shards and refusal is not None:
                found[refusal.reason] = found.get(refusal.reason, 0) + 1
        return found

    # -------------------------------------------------------------------------------------------- the diary
    def note(self, kind: str, text: str) -> None:
        """Write one line into the diary: started, stopped, paused, sealed..."""
        with self._write() as db:
            db.execute("INSERT INTO event (time, kind, text) VALUES (?,?,?)", (time.time(), kind, text))

    def begin_session(self, owner: Owner, slots: int) -> int:
        """Note that a scheduler starts; returns the session's number."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO session (host, pid, begun, slots) VALUES (?,?,?,?)",
                (owner.host, owner.pid, time.time(), slots),
            )
            return int(cursor.lastrowid or 0)

    def update_session(self, session: int, slot_wall_s: float, render_s: float, done: int, failed: int) -> None:
        """Note how far a session is, so that a killed one is accounted for as well."""
        with self._write() as db:
            db.execute(
                "UPDATE session SET ended = ?, slot_wall_s = ?, render_s = ?, done = ?, failed = ? WHERE id = ?",
                (time.time(), slot_wall_s, render_s, done, failed, session),
            )

    def sessions(self) -> list[Session]:
        """Return every session so far, killed ones included."""
        return [Session(*row) for row in self._read(
            "SELECT begun, ended, slots, slot_wall_s, render_s, done, failed FROM session ORDER BY id"
        )]  # fmt: skip


def refused(task: Task, spec: RenderSpec, refusal: Refusal, attempts: int = 0) -> ObjectRecord:
    """Return the record of a task that has no orbits."""
    return ObjectRecord(
        task.uid, task.key, task.shard, task.sha256, task.provenance, "failed", refusal, attempts,
        task_seed(task.sha256, spec),
    )  # fmt: skip


def _end(db: sqlite3.Connection, lease: Lease, outcome: str, refusal: Refusal | None) -> None:
    why = (None,) * 4 if refusal is None else (refusal.reason, refusal.stage, refusal.message, refusal.detail)
    db.execute(
        "UPDATE attempt SET ended = ?, outcome = ?, reason = ?, stage = ?, message = ?, detail = ? WHERE id = ?",
        (time.time(), outcome, *why, lease.attempt),
    )


def _document(task: Task) -> str:
    """`asdict` would copy every value, which for a million tasks takes longer than to store them."""
    refusal = None if task.refusal is None else vars(task.refusal)
    return json.dumps(vars(task) | {"provenance": vars(task.provenance), "refusal": refusal})


def _task(document: str) -> Task:
    fields = json.loads(document)
    refusal = fields["refusal"]
    return Task(
        **fields | {
            "provenance": Provenance(**fields["provenance"]), "refusal": None if refusal is None else Refusal(**refusal),
        }
    )  # fmt: skip
