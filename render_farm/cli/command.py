"""One command line from its arguments to its exit status."""

import logging
from collections.abc import Sequence

from engine.command_line import Answer, run_command_line
from render_farm.cli.verbs import Command
from render_farm.errors import FarmError

log = logging.getLogger(__name__)

DESCRIPTION = "Turntable's render farm: 3D assets in, orbits of posed pictures out. --version prints the version."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    return run_command_line(
        Command, _perform, arguments, program="turntable-farm", description=DESCRIPTION,
        stopped="nothing unfinished was left behind; the same command goes on",
    )  # fmt: skip


def _perform(command: Command) -> Answer:
    # Here, and late: what the commands work with takes a second to import, which help and errors of usage can do without.
    from render_farm.cli.work.dispatch import perform

    try:
        return Answer(perform(command))
    except FarmError as error:
        if error.detail:
            log.debug("the child's last words:\n%s", error.detail)
        raise
