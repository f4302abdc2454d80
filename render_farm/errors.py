"""What the render farm raises where a caller can act. The CLI prints these as one line and exits with 1."""

from typing import Literal, get_args

from engine.errors import TurntableError

Reason = Literal[
    # the file, before Blender is started
    "missing-file",
    "not-a-file",
    "unknown-format",
    "truncated",
    "malformed",
    "unsupported-extension",
    "unsupported-format",
    "fetch-failed",
    # the object, as Blender sees it
    "import-failed",
    "no-triangles",
    "zero-size",
    "not-finite",
    "too-large",
    "animated",
    "missing-textures",
    "transparent",
    # the filters of a run
    "untextured",
    "duplicate",
    "licence",
    # the pictures, before they are committed
    "blank",
    "tiny",
    "cropped",
    "over-exposed",
    "bad-depth",
    "bad-normals",
    "inconsistent",
    # the machine
    "no-gpu",
    "no-blender",
    "timeout",
    "crash",
    "memory",
    "disk-full",
    "bad-output",
    "write-failed",
    "internal",
]
"""Why an object has no orbit."""

TRANSIENT: frozenset[str] = frozenset(
    {"fetch-failed", "timeout", "crash", "memory", "disk-full", "bad-output", "write-failed"}
)
"""Reasons that another attempt may cure; the others will not change."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


class FarmError(TurntableError):
    """An object could not be rendered. `reason` says why in one word, the message in one line, `detail` in many."""

    def __init__(self, reason: str, message: str, detail: str = "", stage: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"reason must be one of {sorted(REASONS)}, got {reason!r}")
        super().__init__(message)
        self.reason = reason
        self.detail = detail
        """The end of what the child process wrote to stderr, for the log."""
        self.stage = stage
        """What was being done: 'importing', 'rendering view 3'."""

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.reason}]"


class RunError(TurntableError):
    """A whole run cannot go on: its folder, its spec or its shards are not what they must be."""
