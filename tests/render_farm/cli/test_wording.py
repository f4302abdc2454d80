"""Numbers as people read them."""

from dataclasses import replace

import pytest

from render_farm.cli.work.wording import count, duration, plan_text, size, summary_text
from render_farm.run.planning import Plan
from render_farm.run.progress import Summary

PLAN = Plan(
    objects=1000, refused=2, sampled=24, sample_failed=0, slots=4, slot_s=12.0, start_s=1.0, objects_per_h=1200.0,
    hours=0.85, hours_error=0.05, bytes=3_400_000_000, render_share=0.9, cpu_hours=3.3, cost=None,
)  # fmt: skip
SUMMARY = Summary(
    done=5, failed=1, total=6, rendered=3, attempts=4, reasons={"timeout": 1}, sealed=1, unsealed=(), wall_s=60.0,
    slot_wall_s=100.0, render_s=80.0, handover_s=1.0, idle_s=0.0, stopped=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h"), (200_000, "2.3 days")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e12, "2 TB")])
def test_size(number, text):
    assert size(number) == text


@pytest.mark.parametrize(
    ("number", "thing", "text"), [(1, "object", "1 object"), (0, "shard", "0 shards"), (2000, "batch", "2,000 batches")]
)
def test_count(number, thing, text):
    assert count(number, thing) == text


def test_a_plan_says_what_a_shard_takes():
    # 256 objects of 12 s on 4 workers: 768 s
    assert "a shard        13 min for 256 objects; a cluster's job must have time for one\n" in plan_text(PLAN, 256)
    # a shard holds no more than there are: 1000 x 12 / 4
    assert "a shard        50 min for 1,000 objects;" in plan_text(PLAN, 4096)
    assert "rate           1,200 objects/h with 4 workers\n" in plan_text(PLAN, 256)
    assert "cost" not in plan_text(PLAN, 256)
    assert plan_text(replace(PLAN, cost=7.5), 256).endswith("cost           7.50")


def test_a_session_is_summed_up():
    assert summary_text(SUMMARY) == (
        "5 of 6 objects done, 1 failed; 3 in this session of 60 s (180/h), 80.0 % of the workers' time inside Cycles; "
        "failures: timeout 1"
    )
    idle = replace(SUMMARY, rendered=0, attempts=0, reasons={})
    assert summary_text(idle) == "5 of 6 objects done, 1 failed; none was finished in this session"
