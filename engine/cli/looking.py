"""Commands that look: summary, doctor."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import EXIT_FAILURE, Answer, Talk


@dataclass(frozen=True)
class Summary:
    """Print a result folder's files and its figures."""

    result: Annotated[Path, tyro.conf.Positional]
    """The result folder."""
    json: bool = False
    """Print the whole report as JSON instead."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Read the report and print it."""
        from engine.results import read_report
        from engine.summary import summary

        report = read_report(self.result)
        return Answer(json.dumps(report, indent=1) if self.json else summary(self.result, report))


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do and what is missing, each with its fix. Exits with 1 if something needed is."""

    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Ask every library and print what can be done."""
        from engine.doctor import diagnose, format_report

        diagnosis = diagnose()
        return Answer(format_report(diagnosis), 0 if diagnosis.ok else EXIT_FAILURE)
