"""A command in several processes: what is said when one of them is ended."""

import os
import signal
from dataclasses import dataclass

import pytest

from engine.cli.processes import spread
from engine.command_line import Answer, Talk
from engine.errors import TrainingError


@dataclass
class Command:
    """Of any kind."""

    talk: Talk


def end_itself(command: Command) -> Answer:
    """As the system does where memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return Answer("")


def test_a_process_that_a_signal_ended_is_named() -> None:
    with pytest.raises(TrainingError, match=r"process [01] of 2 was ended by SIGKILL; if memory ran out: fewer"):
        spread(Command(Talk()), end_itself, 2)
