"""JSON that carries its own checksum, so that any bit that flips shows.

The text is canonical (sorted keys, no spaces, one line) and its last key holds the sha256 of the rest. A reader writes
the document again and compares bytes: a change that JSON itself would not see (1e5 and 1E5) is found as well.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from render_farm.errors import RunError

DIGEST = "~digest"
"""Sorts after every other key."""


def encode(document: Mapping[str, Any], name: str) -> bytes:
    """Return the text of a document with its checksum. Raises RunError where it holds what JSON cannot, such as NaN."""
    try:
        return _signed(document)
    except (TypeError, ValueError) as error:
        raise RunError(f"{name}: holds what JSON cannot ({error}); records must be plain JSON values") from error


def decode(data: bytes, name: str, expected_format: str) -> dict[str, Any]:
    """Check and read a document. `name` is its file's, for messages.

    Raises:
        RunError: not the bytes that were written, or of another format.
    """
    try:
        document = json.loads(data)
        digest = document.pop(DIGEST)
        good = _signed(document) == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{name}: is damaged or cut off ({error!r:.120}); copy it again") from error
    if not good:
        found = hashlib.sha256(_canonical(document)).hexdigest()
        raise RunError(f"{name}: is damaged: its content has checksum {found:.16}..., it says {digest!s:.16}...; "
                       "copy it again")  # fmt: skip
    if document.get("format") != expected_format:
        raise RunError(f"{name}: format must be {expected_format!r}, found {document.get('format')!r}; use the program that "
                       "wrote it")  # fmt: skip
    return document


def _signed(document: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(_canonical(document)).hexdigest()
    return _canonical({**document, DIGEST: digest}) + b"\n"


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
