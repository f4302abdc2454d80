"""Progress: a bar in a terminal, lines with rate and time left in a log, nothing where quiet is asked for."""

import io
import logging
from contextlib import redirect_stderr
from types import SimpleNamespace

import pytest

from render_farm.cli.work import progress
from render_farm.run.progress import Snapshot


class Terminal(io.StringIO):
    """A stderr that is one."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def log_file(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def snapshot(done: int, **fields: object) -> Snapshot:
    plain = {"failed": 0, "total": 40, "rate_per_h": 0.0, "eta_s": None, "bytes": 0, "finishing": 0, "shards_sealed": 1,
             "shards": 4, "paused": "", "slots": ()}  # fmt: skip
    return Snapshot(done=done, **plain | fields)


def test_a_log_gets_a_line_each_half_minute(clock, log_file):
    with redirect_stderr(io.StringIO()), progress.count_bar("objects", False) as show:
        for done in range(0, 101, 10):
            show(done, 1000)
            clock[0] += 10.0
    # ten in ten seconds: an hour's 3600; at 30 s 970 are left, and so on
    assert log_file.messages == [
        "objects: 30 of 1000, 3,600/h, 16 min left",
        "objects: 60 of 1000, 3,600/h, 16 min left",
        "objects: 90 of 1000, 3,600/h, 15 min left",
    ]


def test_a_log_says_so_when_nothing_is_done_yet(clock, log_file):
    with redirect_stderr(io.StringIO()), progress.count_bar("objects", False) as show:
        clock[0] += 31.0
        show(0, 5)
    assert log_file.messages == ["objects: 0 of 5, none yet"]


def test_a_log_gets_the_schedulers_own_rate(clock, log_file):
    with redirect_stderr(io.StringIO()), progress.farm_bar("objects", False) as show:
        show(snapshot(1))
        clock[0] += 31.0
        show(snapshot(9, failed=1, rate_per_h=1234.4, eta_s=88.0, paused="the disk is full"))
        show(snapshot(10))
    assert log_file.messages == [
        "objects: 10 of 40, 1,234/h, 88 s left, 1 failed, paused: the disk is full, 1/4 shards, 0 MiB"
    ]


def test_a_terminal_gets_a_bar_and_no_lines(log_file):
    with redirect_stderr(Terminal()) as terminal, progress.farm_bar("objects", False) as show:
        show(snapshot(10, rate_per_h=1200.0, eta_s=90.0))
    shown = [text for text in terminal.getvalue().replace("\n", "\r").split("\r") if text.strip()][-1]
    assert shown.startswith("objects:  25%|")
    assert shown.rstrip().endswith("| 10/40, 1,200/h, 2 min left, 1/4 shards, 0 MiB")
    with redirect_stderr(terminal), progress.count_bar("views", False) as count:
        count(12, 24)
    assert "views:  50%|" in terminal.getvalue()
    assert "12/24 [" in terminal.getvalue()
    assert log_file.messages == []


def test_quiet_is_quiet():
    terminal = Terminal()
    with (
        redirect_stderr(terminal),
        progress.farm_bar("objects", True) as show,
        progress.count_bar("views", True) as count,
    ):
        show(snapshot(10))
        count(1, 2)
    assert terminal.getvalue() == ""
