"""JSON that carries its own checksum, so that any bit that flips shows.

The text is canonical (sorted keys, no spaces, one line) and its last key holds the sha256 of the text without that key.
A reader checks the bytes before it parses them: a change that JSON itself would not see (1e5 and 1E5) is found as well,
and nothing is written again to compare, which for the receipts of a million objects would take an hour.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from render_farm.errors import RunError

DIGEST = "~digest"
"""Sorts after every other key."""
MARK, END = f',"{DIGEST}":"'.encode(), b'"}\n'
"""Around the checksum. No text in the document can hold MARK: its quotes are escaped there."""


def encode(document: Mapping[str, Any], name: str) -> bytes:
    """Return the text of a document with its checksum. Raises RunError where it holds what JSON cannot, such as NaN."""
    try:
        content = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise RunError(f"{name}: holds what JSON cannot ({error}); records must be plain JSON values") from error
    return content[:-1] + MARK + hashlib.sha256(content).hexdigest().encode() + END


def decode(data: bytes, name: str, expected_format: str) -> dict[str, Any]:
    """Check and read a document. `name` is its file's, for messages.

    Raises:
        RunError: not the bytes that were written, or of another format.
    """
    head, _, tail = data.rpartition(MARK)
    if not head or not tail.endswith(END):
        raise RunError(f"{name}: is damaged or cut off (no checksum at its end); copy it again")
    content, digest = head + b"}", tail.removesuffix(END).decode(errors="replace")
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise RunError(f"{name}: is damaged: its content has checksum {found:.16}..., it says {digest:.16}...; "
                       "copy it again")  # fmt: skip
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError) as error:  # signed, and no JSON all the same: not by this program
        raise RunError(f"{name}: is damaged or cut off ({error!r:.120}); copy it again") from error
    if document.get("format") != expected_format:
        raise RunError(f"{name}: format must be {expected_format!r}, found {document.get('format')!r}; use the program that "
                       "wrote it")  # fmt: skip
    return dict(document)
