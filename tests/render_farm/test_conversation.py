"""The protocol without processes: what must come next, how soon, and what is refused."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from render_farm.cameras import plan_orbits
from render_farm.conversation import Conversation
from render_farm.errors import FarmError
from render_farm.gather import make_job
from render_farm.process import Deadline
from render_farm.spec import CameraSpec, Condition, Execution, RenderSpec

SPEC = RenderSpec(cameras=CameraSpec("ring16", views=2), condition=Condition(CameraSpec("random", views=1)))
LIMITS = Execution(
    start_timeout_s=1.0,
    import_timeout_s=2.0,
    first_view_timeout_s=3.0,
    view_timeout_s=4.0,
    heartbeat_timeout_s=5.0,
    threads=1,
)
JOB = make_job(
    "K", Path("/a.glb"), ".glb", planned=plan_orbits(1, SPEC), seed=1, spec=SPEC, execution=LIMITS, folder=Path("/v")
)
HELLO = {"event": "hello", "blender": "4.5", "device": "CPU", "pid": 1}
BEGIN = {"event": "begin", "key": "K"}
IMPORTED = {"event": "imported", "key": "K", "scale": 1.0, "centre": [0, 0, 0], "triangles": 1, "objects": 1,
            "warnings": []}  # fmt: skip
VIEWS = [
    {"event": "view", "key": "K", "orbit": orbit.name, "index": view.index, "path": view.path, "render_s": 0.5,
     "write_s": 0.25}
    for orbit in JOB.orbits for view in orbit.views
]  # fmt: skip
DONE = {"event": "done", "key": "K", "stages": {}, "cpu_s": 1.0, "peak_bytes": 1, "rss_bytes": 1}


def after(events: Sequence[Any], factor: float = 1.0) -> Conversation:
    talk = Conversation(JOB, LIMITS, factor, {})
    for event in events:
        talk.take(event)
    return talk


@pytest.mark.parametrize(
    ("events", "deadline"),
    [
        ([], Deadline("starting Blender", 1.0)),
        ([HELLO], Deadline("taking the job", 1.0)),
        ([HELLO, BEGIN], Deadline("importing", 2.0)),
        ([HELLO, BEGIN, IMPORTED], Deadline("rendering ring16 view 0", 3.0, 5.0)),
        ([HELLO, BEGIN, IMPORTED, VIEWS[0]], Deadline("rendering ring16 view 1", 4.0, 5.0)),
        ([HELLO, BEGIN, IMPORTED, VIEWS[1]], Deadline("rendering ring16 view 0", 4.0, 5.0)),  # in any order
        ([HELLO, BEGIN, IMPORTED, *VIEWS[:2]], Deadline("rendering condition view 0", 4.0, 5.0)),
        ([HELLO, BEGIN, IMPORTED, *VIEWS], Deadline("finishing", 4.0)),
    ],
)
def test_deadlines(events: Sequence[Any], deadline: Deadline) -> None:
    talk = after(events)
    assert not talk.ended
    assert talk.deadline == deadline
    double = after(events, factor=2.0).deadline
    silence_s = None if deadline.silence_s is None else 2 * deadline.silence_s
    assert double == Deadline(deadline.stage, 2 * deadline.seconds, silence_s)


def test_a_whole_conversation() -> None:
    talk = after([HELLO, BEGIN, IMPORTED, *VIEWS, DONE])
    assert talk.ended
    assert talk.refusal is None
    assert (talk.hello, talk.imported, talk.done) == (HELLO, IMPORTED, DONE)
    assert (talk.render_s, talk.write_s) == (1.5, 0.75)
    assert talk.paths() == {
        "ring16": (Path("/v/ring16.000.exr"), Path("/v/ring16.001.exr")), "condition": (Path("/v/condition.000.exr"),)
    }  # fmt: skip


@pytest.mark.parametrize(("stage", "expected"), [("reading", "reading"), (None, "importing")])
def test_a_refusal_ends_it(stage: str | None, expected: str) -> None:
    answer = {"event": "error", "key": "K", "reason": "animated", "message": "it moves", "stage": stage}
    talk = after([HELLO, BEGIN, answer])
    assert talk.ended
    assert talk.refusal is not None
    assert (talk.refusal.reason, talk.refusal.args[0], talk.refusal.stage) == ("animated", "it moves", expected)


def test_an_error_before_any_job_needs_no_key() -> None:
    talk = after([{"event": "error", "key": "", "reason": "no-blender", "message": "no bpy"}])
    assert talk.refusal is not None
    assert (talk.refusal.reason, talk.refusal.stage) == ("no-blender", "starting Blender")


def without(event: Any, name: str) -> Any:
    return {key: value for key, value in event.items() if key != name}


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([HELLO, HELLO], "'hello'"),
        ([without(HELLO, "device")], "'hello'"),
        ([HELLO, IMPORTED], "'imported'"),
        ([HELLO, BEGIN, BEGIN], "'begin'"),
        ([HELLO, BEGIN, VIEWS[0]], "'view'"),
        ([HELLO, BEGIN, IMPORTED, IMPORTED], "'imported'"),
        ([HELLO, BEGIN, IMPORTED, DONE], "'done'"),
        ([HELLO, BEGIN, without(IMPORTED, "centre")], "'imported' without centre"),
        ([HELLO, BEGIN, IMPORTED, VIEWS[0], VIEWS[0]], "a view that was not asked for"),
        ([HELLO, BEGIN, IMPORTED, VIEWS[0] | {"path": VIEWS[1]["path"]}], "a view that was not asked for"),
        ([HELLO, BEGIN, IMPORTED, VIEWS[0] | {"index": [1]}], "a view that was not asked for"),
        ([HELLO, BEGIN, IMPORTED, without(VIEWS[0], "render_s")], "'view' without render_s"),
        ([HELLO, BEGIN, IMPORTED, *VIEWS, without(DONE, "cpu_s")], "'done' without cpu_s"),
        ([HELLO, BEGIN, IMPORTED, *VIEWS, DONE | {"stages": 1}], "'done' without stages"),
        ([HELLO, BEGIN | {"key": "L"}], "'begin' of job 'L', expected 'K'"),
        ([HELLO, {"event": "error", "key": "L", "reason": "animated"}], "'error' of job 'L', expected 'K'"),
        ([HELLO, {"event": "error", "key": "K", "reason": "tired"}], "an error of no known reason"),
        ([HELLO, {"event": "error", "key": "K", "reason": ["animated"]}], "an error of no known reason"),
        ([HELLO, {"event": "waltz", "key": "K"}], "'waltz'"),
    ],
)
def test_what_is_out_of_step_is_refused(events: Sequence[Any], what: str) -> None:
    talk = after(events[:-1])
    with pytest.raises(FarmError) as caught:
        talk.take(events[-1])
    assert str(caught.value) == (f"Blender's child is out of step: it sent {what} while {talk.stage} [bad-output]")
    assert caught.value.stage == talk.stage
    assert not talk.ended


def test_a_reused_child_has_said_hello() -> None:
    talk = Conversation(dataclasses.replace(JOB, key="K2"), LIMITS, 1.0, HELLO)
    assert talk.stage == "taking the job"
    talk.take(BEGIN | {"key": "K2"})
    assert talk.stage == "importing"
