"""One command line from its arguments to its exit status."""

import logging
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from engine.command_line import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    end_politely_on_sigterm,
    product_version,
    set_up_logging,
)
from engine.errors import TurntableError
from render_farm.cli.adopting import Gobjaverse
from render_farm.cli.again import Replay, Retry
from render_farm.cli.farming import Plan, RunCommand, Slurm, Worker
from render_farm.cli.looking import Export, Failures, Manifest, Report, Status, Verify
from render_farm.cli.objects import Example, Render
from render_farm.errors import FarmError

log = logging.getLogger(__name__)

DESCRIPTION = "Turntable's render farm: 3D assets in, orbits of posed pictures out. --version prints the version."
named = tyro.conf.subcommand
Command = (
    Annotated[Render, named("render")]
    | Annotated[Example, named("example")]
    | Annotated[Plan, named("plan")]
    | Annotated[RunCommand, named("run")]
    | Annotated[Status, named("status")]
    | Annotated[Failures, named("failures")]
    | Annotated[Retry, named("retry")]
    | Annotated[Replay, named("replay")]
    | Annotated[Verify, named("verify")]
    | Annotated[Report, named("report")]
    | Annotated[Export, named("export")]
    | Annotated[Manifest, named("manifest")]
    | Annotated[Gobjaverse, named("gobjaverse")]
    | Annotated[Worker, named("worker")]
    | Annotated[Slurm, named("slurm")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        sys.stdout.write(f"turntable-farm {product_version()}\n")
        return 0
    command = tyro.cli(Command, prog="turntable-farm", description=DESCRIPTION, args=given)
    set_up_logging(command.talk.verbose, command.talk.quiet)
    end_politely_on_sigterm()
    try:
        result = command.run()
    except KeyboardInterrupt:
        log.error("stopped: nothing unfinished was left behind; the same command goes on")
        return EXIT_INTERRUPTED
    except TurntableError as error:
        log.error("%s", error)
        if isinstance(error, FarmError) and error.detail:
            log.debug("the child's last words:\n%s", error.detail)
        return EXIT_FAILURE
    except ValueError as error:  # a setting out of its range
        log.error("%s", error)
        return EXIT_USAGE
    except Exception as error:
        log.debug("", exc_info=True)
        log.error("unexpected %s: %s; this is a bug, see the details with -v", type(error).__name__, error)
        return EXIT_FAILURE
    sys.stdout.write(f"{result}\n")
    return 0
