"""Samples that cannot be learned from: named, counted by reason, and an error where they are more than a few.

BadSample --Tally.bad--> Counts, a warning        Tally.bad, .ended --too many--> TrainingError
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.errors import SHOWN, TrainingError

log = logging.getLogger(__name__)

Reason = Literal[
    "too small", "not square", "too few views", "no caption", "no depth", "damaged", "cut off", "cannot be read", "empty"
]  # fmt: skip
"""Why a sample is bad; the last three say it of a shard."""
FIRST = 20
"""When all of so many first samples are bad, nothing good will come."""
ENOUGH = 200
"""Samples from which on the bad ones' share says something."""
WARNINGS = 50
"""Bad samples that a reader tells by name."""
ALLOWED = 0.01
"""Share of bad samples that a run goes on with."""


class BadSample(Exception):
    """A sample is skipped. `all_so` is what to say if every sample is like that."""

    def __init__(self, name: str, reason: Reason, detail: str, all_so: str = "") -> None:
        super().__init__(f"{name} ({detail})")
        self.name, self.reason, self.detail, self.all_so = name, reason, detail, all_so


class PassedOver(Exception):
    """A sound sample that a filter does not let through; the text is the reason that is counted."""


@dataclass(frozen=True)
class Counts:
    """What was read so far."""

    good: int = 0
    """Samples that clips were made of."""
    bad: Mapping[str, int] = field(default_factory=dict)
    """Skipped samples and shards by reason."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Pictures that filters did not let through, by filter."""
    names: tuple[str, ...] = ()
    """The first bad ones, with what is wrong with each."""

    @property
    def read(self) -> int:
        """Good and bad ones."""
        return self.good + self.all_bad

    @property
    def all_bad(self) -> int:
        """Bad ones, whatever the reason."""
        return sum(self.bad.values())

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            self.good + other.good,
            dict(Counter(self.bad) + Counter(other.bad)),
            dict(Counter(self.passed_over) + Counter(other.passed_over)),
            tuple(dict.fromkeys((*self.names, *other.names)))[:SHOWN],
        )


def check(counts: Counts, patterns: str) -> None:
    """Raise TrainingError where more than ALLOWED of at least ENOUGH samples are bad."""
    if counts.read >= ENOUGH and counts.all_bad > ALLOWED * counts.read:
        raise TrainingError(
            f"{patterns}: {counts.all_bad} of the first {counts.read} samples are bad, more than {ALLOWED:.0%}: "
            f"{_listed(counts)}; repair them, or leave their shards out"
        )


class Tally:
    """One reader's counts: of what it handed on, and of all that it saw (readers that share shards see the same)."""

    def __init__(self, patterns: str) -> None:
        self._patterns = patterns
        self._seen = Counts()
        self._told = Counts()
        self._warned: set[str] = set()
        self._held: list[str] = []  # warnings; told once something is good: else the error says it all
        self._reasons: dict[str, str] = {}

    def good(self) -> None:
        """Count a sample that a clip was made of."""
        self.saw_good()
        self._told += Counts(good=1)

    def saw_good(self) -> None:
        """Count a sample that another reader makes a clip of."""
        self._seen += Counts(good=1)
        while self._held:
            log.warning("skipped: %s", self._held.pop(0))

    def bad(self, problem: BadSample, *, own: bool = True) -> None:
        """Count, warn once of each name, and raise TrainingError when it is too much."""
        if problem.name not in self._warned:
            self._warned.add(problem.name)
            if own and len(self._warned) <= WARNINGS:
                self._held.append(str(problem) + ("; others are only counted" if len(self._warned) == WARNINGS else ""))
        one = Counts(bad={problem.reason: 1}, names=(str(problem),))
        self._seen += one
        if own:
            self._told += one
        self._reasons.setdefault(problem.reason, problem.all_so)
        if self._seen.good == 0 and self._seen.all_bad >= FIRST:
            self._nothing_good(f"all of the first {FIRST} samples are bad")
        check(self._seen, self._patterns)

    def passed_over(self, reason: PassedOver, *, own: bool = True) -> None:
        """Count a sample that a filter did not let through."""
        one = Counts(passed_over={str(reason): 1})
        self._seen += one
        if own:
            self._told += one

    def passed(self) -> None:
        """Raise TrainingError if a whole pass through the data brought nothing."""
        if self._seen.good == 0 and self._seen.all_bad:
            self._nothing_good(f"all {self._seen.all_bad} samples are bad")
        if self._seen.good == 0:
            filtered = ", ".join(f"{number} {reason}" for reason, number in self._seen.passed_over.items())
            why = f"filters let none through ({filtered})" if filtered else "holds no sample"
            raise TrainingError(f"{self._patterns}: {why}; name other shards")

    def taken(self) -> Counts:
        """Return what was counted since the last call, for the process that adds it up."""
        told, self._told = self._told, Counts()
        return told

    def _nothing_good(self, what: str) -> None:
        if len(self._reasons) == 1 and (all_so := next(iter(self._reasons.values()))):
            raise TrainingError(f"{self._patterns}: {all_so}")
        raise TrainingError(f"{self._patterns}: {what}: {_listed(self._seen)}; repair them, or name other shards")


def _listed(counts: Counts) -> str:
    return "; ".join(counts.names) + ("; and others" if len(counts.names) == SHOWN < counts.all_bad else "")
