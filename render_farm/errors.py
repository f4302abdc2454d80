"""What the render farm raises where a caller can act. The CLI prints these as one line and exits with 1."""

from typing import Literal, get_args

from engine.errors import TurntableError

Reason = Literal[
    "missing-file",
    "not-a-file",
    "unknown-format",
    "truncated",
    "malformed",
    "unsupported-extension",
    "unsupported-format",
    "import-failed",
    "no-triangles",
    "zero-size",
    "not-finite",
    "blank",
    "no-gpu",
    "no-blender",
    "timeout",
    "crash",
    "bad-output",
    "write-failed",
    "internal",
]
"""Why an object has no orbit. A scheduler may try again after timeout, crash, bad-output and write-failed; the others
will not change."""

TRANSIENT: frozenset[str] = frozenset({"timeout", "crash", "bad-output", "write-failed"})
"""Reasons that another attempt may cure."""

REASONS: frozenset[str] = frozenset(get_args(Reason))


class FarmError(TurntableError):
    """An object could not be rendered. `reason` says why in one word, the message in one line, `detail` in many."""

    def __init__(self, reason: str, message: str, detail: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"reason must be one of {sorted(REASONS)}, got {reason!r}")
        super().__init__(message)
        self.reason = reason
        self.detail = detail
        """The end of what the child process wrote to stderr, for the log."""

    def __str__(self) -> str:
        return f"{super().__str__()} [{self.reason}]"
