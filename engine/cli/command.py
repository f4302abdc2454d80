"""`turntable`: all commands by name."""

from collections.abc import Sequence
from typing import Annotated

import tyro

from engine.cli.evaluate import Evaluate
from engine.cli.generate import Generate
from engine.cli.looking import Doctor, Summary
from engine.cli.reconstruct import Reconstruct
from engine.cli.train import Train
from engine.cli.train_mini import TrainMini
from engine.cli.weights import Convert
from engine.command_line import Answer, run_command_line

DESCRIPTION = (
    "Turntable: a picture, a sentence or an orbit in, Gaussian splats and textured meshes out. "
    "--version prints the version."
)

Verb = Generate | Reconstruct | Evaluate | Train | TrainMini | Convert | Summary | Doctor
Command = (
    Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[TrainMini, tyro.conf.subcommand("train-mini")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    return run_command_line(
        Command, _perform, arguments, program="turntable", description=DESCRIPTION,
        stopped="whole stages are kept; the same command goes on from there",
    )  # fmt: skip


def _perform(command: Verb) -> Answer:
    return command.perform()
