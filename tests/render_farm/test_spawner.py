"""Children are started by a thread that nothing may end."""

import os
import sys
import threading

import pytest

from render_farm.spawner import spawn


def test_what_cannot_be_started_is_told_and_the_next_one_starts() -> None:
    """A thread that died of it would leave this caller, and all later ones, waiting for ever."""
    problems: list[BaseException] = []

    def try_it() -> None:
        try:
            spawn([sys.executable, "a\0b"], os.environ)
        except ValueError as error:
            problems.append(error)

    caller = threading.Thread(target=try_it, daemon=True)
    caller.start()
    caller.join(20)
    assert not caller.is_alive()
    assert [str(problem) for problem in problems] == ["embedded null byte"]
    with pytest.raises(FileNotFoundError):
        spawn(["/nowhere"], os.environ)
    child = spawn([sys.executable, "-S", "-c", "print(7)"], os.environ)
    assert child.communicate()[0] == b"7\n"
