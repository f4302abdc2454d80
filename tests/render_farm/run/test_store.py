"""The scheduler's memory: what is leased is ours alone, what fails comes again, and a dead owner's work is taken back."""

import dataclasses
import sqlite3

import pytest

from render_farm.errors import RunError
from render_farm.records import Refusal
from render_farm.run.owner import Owner
from render_farm.run.schema import Costs, Counts
from render_farm.run.store import Store, refused
from tests.render_farm.staged import SPEC, Ball

CRASH = Refusal("crash", "Blender was killed by SIGSEGV", "importing", "last words")
ME = Owner.current()
DEAD = Owner(ME.host, 2**22 + 1, 1.0)  # no Linux process has an id beyond 2^22
SHARD = "000-000000"


def test_tasks_go_in_once_and_come_back_as_they_were(store):
    refusal = Refusal("licence", "CC-BY-NC-4.0 is not allowed", "catalogue")
    tasks = [Ball("a").task, dataclasses.replace(Ball("b").task, refusal=refusal), Ball("c", shard="000-000001").task]
    assert store.register(tasks) == 3
    assert store.register(tasks) == 0
    rows = store.rows(SHARD)
    assert [row.task for row in rows] == tasks[:2]
    assert [(row.state, row.attempts) for row in rows] == [("pending", 0), ("failed", 0)]
    assert rows[1].record == refused(tasks[1], SPEC, refusal)
    assert store.counts() == Counts(total=3, done=0, failed=1, pending=2, busy=0, bytes=0)
    assert store.counts(["000-000001"]).total == 1
    assert store.pending() == {SHARD: 1, "000-000001": 1}


def test_an_object_goes_all_the_way(store):
    store.register([Ball("a").task])
    lease = store.lease(SHARD, ME, 0)
    assert (lease.task, lease.attempts) == (Ball("a").task, 0)
    assert store.lease(SHARD, ME, 1) is None
    assert store.state(SHARD, "a") == "running"
    store.finishing(lease)
    assert store.state(SHARD, "a") == "finishing"
    assert not store.is_complete(SHARD)
    store.staged(lease, 1000)
    assert store.is_complete(SHARD)
    assert store.counts() == Counts(1, 1, 0, 0, 0, 1000)
    store.seal(SHARD, [Ball("a").record()])
    assert store.sealed_shards() == {SHARD}
    assert store.state(SHARD, "a") == "sealed"
    assert store.counts().done == 1


def test_of_sealed_shards_it_remembers_what_failed_and_why(store):
    done, failed = Ball("a"), Ball("b", refusal=CRASH)
    store.register([done.task, failed.task, Ball("c", shard="000-000001").task])
    assert store.sealed_fates() == {}
    store.seal(SHARD, [done.record(), failed.record()])
    assert store.sealed_fates() == {SHARD: {"a": None, "b": failed.record()}}
    assert (store.counts().done, store.counts().failed, store.retry()) == (1, 1, 0)
    with sqlite3.connect(store.path) as db:  # as earlier programs left it
        db.execute("UPDATE task SET record = NULL")
    assert store.sealed_fates() == {}


def test_those_tried_least_go_first(store):
    store.register([Ball(uid).task for uid in "abc"])
    lease = store.lease(SHARD, ME, 0)
    store.again(lease, CRASH)
    assert [store.lease(SHARD, ME, 0).task.uid for _ in range(3)] == ["b", "c", "a"]


def test_an_attempt_that_was_left_does_not_count(store):
    store.register([Ball("a").task])
    store.release(store.lease(SHARD, ME, 0), "stopped")
    store.again(store.lease(SHARD, ME, 0), CRASH)
    lease = store.lease(SHARD, ME, 0)
    assert lease.attempts == 1
    store.failed(lease, refused(lease.task, SPEC, CRASH, 2))
    row = store.rows(SHARD)[0]
    assert (row.state, row.attempts, row.record.refusal) == ("failed", 2, CRASH)
    assert store.failures() == [("crash", "importing", 2)]
    assert store.is_complete(SHARD)


def test_what_an_attempt_cost_is_kept(store, tmp_path):
    store.register([Ball("a").task])
    lease = store.lease(SHARD, ME, 3)
    store.again(lease, CRASH)
    store.costs(lease, Costs(2.0, 1.5, 0.25, 7))
    with sqlite3.connect(tmp_path / "state.sqlite") as db:
        found = db.execute(
            "SELECT uid, number, slot, outcome, detail, wall_s, render_s, handover_s, peak_bytes FROM attempt"
        )
        assert found.fetchall() == [("a", 1, 3, "failed", "last words", 2.0, 1.5, 0.25, 7)]
    db.close()


def test_leases_of_the_dead_are_taken_back_and_of_the_living_are_not(store):
    store.register([Ball(uid).task for uid in "abc"])
    store.finishing(store.lease(SHARD, DEAD, 0))
    living = dataclasses.replace(ME, pid=1, started=_start_of_init())
    store.lease(SHARD, living, 0)
    assert store.take_back(ME) == ["a"]
    assert [row.state for row in store.rows(SHARD)] == ["pending", "running", "pending"]
    assert [store.lease(SHARD, ME, 0).task.uid for _ in range(2)] == ["c", "a"]
    assert sorted(store.take_back(ME)) == ["a", "c"], "our own, from before, are nobody's"
    assert store.lease(SHARD, ME, 0).attempts == 0


def _start_of_init() -> float:
    import psutil

    return float(psutil.Process(1).create_time())


def test_failed_objects_are_tried_again_on_request_by_reason(store):
    timeout = Refusal("timeout", "not done within 300 s", "importing")
    refusal = Refusal("licence", "CC-BY-NC-4.0 is not allowed")
    store.register([Ball("a").task, Ball("b").task, dataclasses.replace(Ball("c").task, refusal=refusal)])
    for why in (CRASH, timeout):
        lease = store.lease(SHARD, ME, 0)
        store.failed(lease, refused(lease.task, SPEC, why, 3))
    assert store.last_reasons([SHARD]) == {"crash": 1, "timeout": 1, "licence": 1}
    assert store.retry({"timeout"}) == 1
    assert [(row.state, row.attempts) for row in store.rows(SHARD)] == [("failed", 1), ("pending", 0), ("failed", 0)]
    assert store.retry() == 1, "what was refused before Blender stays refused"
    assert store.counts().pending == 2


def test_a_transaction_is_whole_or_nothing(store):
    store.register([Ball("a").task, Ball("b").task])
    lease = store.lease(SHARD, ME, 0)

    def fail_half_way() -> None:
        with store._write() as db:
            db.execute("UPDATE task SET state = 'pending'")
            db.execute("UPDATE task SET state = 'half done'")

    with pytest.raises(sqlite3.IntegrityError):
        fail_half_way()
    assert store.state(SHARD, "a") == "running"
    store.staged(lease, 1)
    with pytest.raises(AssertionError, match="a is not being worked on"):
        store.failed(lease, refused(lease.task, SPEC, CRASH))
    assert store.counts().done == 1


def test_it_outlives_its_process(store, tmp_path):
    store.register([Ball("a").task])
    store.staged(store.lease(SHARD, ME, 0), 5)
    store.note("started", "1 of 1 objects")
    session = store.begin_session(ME, 2)
    store.update_session(session, 10.0, 9.0, 1, 0)
    store.close()
    again = Store(tmp_path / "state.sqlite", SPEC)
    assert again.state(SHARD, "a") == "staged"
    (found,) = again.sessions()
    assert (found.slots, found.slot_wall_s, found.render_s, found.done, found.failed) == (2, 10.0, 9.0, 1, 0)
    again.close()


def test_a_store_of_something_else_is_refused(store, tmp_path):
    with pytest.raises(
        RunError, match=rf"state\.sqlite is of spec {SPEC.digest}, expected .*; delete it: what is staged"
    ):
        Store(tmp_path / "state.sqlite", dataclasses.replace(SPEC, samples=3))
    (tmp_path / "other.sqlite").write_bytes(b"this is no database, and long enough to be seen as none" * 100)
    with pytest.raises(RunError, match=r"cannot be used as the farm's state \(file is not a database\); delete it"):
        Store(tmp_path / "other.sqlite", SPEC)
