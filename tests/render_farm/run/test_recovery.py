"""Whatever a killed scheduler left, the store follows the files."""

import shutil

import pytest

from render_farm.errors import RunError
from render_farm.records import Refusal
from render_farm.run.owner import Owner
from render_farm.run.recovery import Recovery, recover
from render_farm.run.store import Store, refused
from render_farm.shards import open_output, run_context, seal_shard
from tests.render_farm.staged import SPEC, VERSIONS, Ball

ME = Owner.current()
DEAD = Owner(ME.host, 2**22 + 1, 1.0)
SHARD, NEXT = "000-000000", "000-000001"
BALLS = (Ball("a"), Ball("b"), Ball("c", shard=NEXT))
NOTHING = Recovery((), (), (), (), ())


@pytest.fixture
def put_right(store, staging, tmp_path):
    store.register([ball.task for ball in BALLS])
    return lambda: recover(store, staging, open_output(tmp_path / "out"), [SHARD, NEXT], ME)


def stage(staging, ball):
    return staging.commit(ball.record(), ball.images(), "lossless")


def seal(staging, tmp_path, *balls):
    staged = {ball.uid: stage(staging, ball) for ball in balls if ball.refusal is None}
    output = open_output(tmp_path / "out")
    return seal_shard(output, SHARD, [ball.record() for ball in balls], staged, context=run_context(SPEC, VERSIONS))


def test_nothing_to_do(put_right):
    assert put_right() == NOTHING


def test_rendering_when_it_died(store, staging, put_right):
    store.lease(SHARD, DEAD, 0)
    store.finishing(store.lease(SHARD, DEAD, 1))
    assert put_right() == Recovery((), (), ("a", "b"), (), ())
    assert [row.state for row in store.rows(SHARD)] == ["pending", "pending"]
    assert put_right() == NOTHING


def test_staged_but_not_marked(store, staging, put_right):
    store.finishing(store.lease(SHARD, DEAD, 0))
    stage(staging, BALLS[0])
    assert put_right() == Recovery((), (), ("a",), ("a",), ())
    row = store.rows(SHARD)[0]
    assert (row.state, row.attempts) == ("staged", 1)
    assert store.counts().bytes == staging.size_bytes(SHARD, "a")
    assert put_right() == NOTHING


def test_staged_not_marked_and_damaged(store, staging, put_right):
    folder = stage(staging, BALLS[0])
    path = folder / "a.ring24.rgba_01.webp"
    path.write_bytes(path.read_bytes()[:-20])
    assert put_right() == NOTHING
    assert not folder.exists()
    assert store.state(SHARD, "a") == "pending"


def test_marked_but_gone(store, staging, put_right):
    store.staged(store.lease(SHARD, DEAD, 0), 10)
    assert put_right() == Recovery((), (), (), (), ("a",))
    assert (store.state(SHARD, "a"), store.counts().bytes) == ("pending", 0)


def test_sealed_but_not_marked(store, staging, tmp_path, put_right):
    lease = store.lease(SHARD, DEAD, 0)
    store.staged(lease, 10)
    failed = Ball("b", refusal=Refusal("crash", "Blender was killed by SIGSEGV"))
    seal(staging, tmp_path, BALLS[0], failed)
    assert put_right() == Recovery((SHARD,), (), (), (), ())
    assert [row.state for row in store.rows(SHARD)] == ["sealed", "sealed"]
    assert (store.counts().done, store.counts().failed) == (1, 1)
    assert staging.find_staged() == []
    assert put_right() == NOTHING


def test_marked_as_sealed_but_staging_not_removed(store, staging, tmp_path, put_right):
    seal(staging, tmp_path, *BALLS[:2])
    store.seal(SHARD, [ball.record() for ball in BALLS[:2]])
    assert put_right() == NOTHING
    assert staging.find_staged() == []


def test_without_its_store_everything_is_found_again(store, staging, tmp_path, put_right):
    seal(staging, tmp_path, *BALLS[:2])
    stage(staging, BALLS[2])
    store.close()
    for path in tmp_path.glob("state.sqlite*"):
        path.unlink()
    again = Store(tmp_path / "state.sqlite", SPEC)
    again.register([ball.task for ball in BALLS])
    found = recover(again, staging, open_output(tmp_path / "out"), [SHARD, NEXT], ME)
    assert found == Recovery((SHARD,), (), (), ("c",), ())
    assert (again.counts().done, again.counts().pending) == (3, 0)
    again.close()


def test_an_object_that_had_failed_and_is_staged_all_the_same_is_done(store, staging, put_right):
    lease = store.lease(SHARD, ME, 0)
    store.failed(lease, refused(lease.task, SPEC, Refusal("timeout", "converting took more than 600 s"), 1))
    stage(staging, BALLS[0])
    assert put_right().adopted == ("a",)
    assert store.rows(SHARD)[0].record is None
    assert store.counts().done == 1


def test_shards_of_others_are_left_alone(store, staging, tmp_path, put_right):
    stage(staging, BALLS[2])
    assert recover(store, staging, open_output(tmp_path / "out"), [SHARD], ME) == NOTHING
    assert staging.find_staged() == [(NEXT, "c")]


def test_a_damaged_receipt_is_told(staging, tmp_path, put_right):
    seal(staging, tmp_path, *BALLS[:2])
    path = tmp_path / "out" / "receipts" / f"{SHARD}.json"
    path.write_bytes(path.read_bytes().replace(b'"a"', b'"z"', 1))
    with pytest.raises(RunError, match=f"{SHARD}.json"):
        put_right()
    shutil.rmtree(tmp_path / "out" / "receipts")
    assert put_right().adopted == ("a", "b")


def test_a_sealed_shard_whose_receipt_was_removed_is_open_again(store, staging, tmp_path, put_right):
    seal(staging, tmp_path, *BALLS[:2])
    put_right()
    assert store.sealed_shards() == {SHARD}
    (tmp_path / "out" / "receipts" / f"{SHARD}.json").unlink()
    assert put_right().reopened == (SHARD,)
    assert store.sealed_shards() == set()
    assert [row.state for row in store.rows(SHARD)] == ["pending", "pending"]
    assert put_right() == NOTHING
