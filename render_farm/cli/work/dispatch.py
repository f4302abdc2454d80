"""From what was asked for to the function that does it."""

from typing import assert_never

from render_farm.cli.adopting import Gobjaverse
from render_farm.cli.again import Replay, Retry
from render_farm.cli.farming import Plan, RunCommand, Slurm, Worker
from render_farm.cli.looking import Export, Failures, Manifest, Report, Status, Verify
from render_farm.cli.objects import Example, Render
from render_farm.cli.verbs import Command
from render_farm.cli.work.adopting import adopt
from render_farm.cli.work.again import replay_object, retry_failures
from render_farm.cli.work.farming import plan_run, run_share, run_to_its_end, write_array_script
from render_farm.cli.work.looking import (
    export_orbits,
    make_report,
    merge_manifest,
    show_failures,
    show_status,
    verify_output,
)
from render_farm.cli.work.objects import example, render


def perform(command: Command) -> str:
    """Do what a command asks for, and return what goes to stdout."""
    match command:
        case Render():
            return render(command)
        case Example():
            return example(command)
        case Plan():
            return plan_run(command)
        case RunCommand():
            return run_to_its_end(command)
        case Status():
            return show_status(command)
        case Failures():
            return show_failures(command)
        case Retry():
            return retry_failures(command)
        case Replay():
            return replay_object(command)
        case Verify():
            return verify_output(command)
        case Report():
            return make_report(command)
        case Export():
            return export_orbits(command)
        case Manifest():
            return merge_manifest(command)
        case Gobjaverse():
            return adopt(command)
        case Worker():
            return run_share(command)
        case Slurm():
            return write_array_script(command)
        case _:
            assert_never(command)
