"""What the engine raises where a caller can act. The CLI prints these as one line and exits with 1."""

from collections.abc import Collection

SHOWN = 4
"""How many of many names an error tells."""


class TurntableError(Exception):
    """Base: the message names the thing, what was expected, what was found and how to fix it, in one line."""


class FileFormatError(TurntableError):
    """A file does not hold what its format promises."""


class OrbitError(FileFormatError):
    """An orbit on disk does not validate."""


class CheckpointError(FileFormatError):
    """Weights that are broken, refused, or of another network than was asked for."""


class PictureError(FileFormatError):
    """A picture that no object can be made from."""


class TrainingError(TurntableError):
    """Training that cannot begin or go on: data, settings, a checkpoint of another run, memory, losses that are no numbers."""


class EvaluationError(TurntableError):
    """Something that cannot be measured."""


class MissingDependencyError(TurntableError):
    """A library or device that this step needs is not here; the message says how to get it."""


def named(names: Collection[str]) -> str:
    """Return some names and the number of all, for an error."""
    shown = ", ".join(sorted(names)[:SHOWN])
    return f"{shown} ({len(names)} in all)" if len(names) > SHOWN else shown
