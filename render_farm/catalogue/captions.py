"""Cap3D's captions: a CSV without a header, uid and caption in each row."""

import csv
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from render_farm.catalogue.entry import Entry
from render_farm.errors import RunError

LOG = logging.getLogger(__name__)


def read_captions(path: Path) -> dict[str, str]:
    """Read uid -> caption. Captions may hold commas and line breaks in quotes; a header 'uid,caption' is passed over.

    Raises:
        RunError: not there, not UTF-8, or a row that has not two columns; the message names the line.
    """
    captions: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row:
                    continue
                if len(row) != 2:
                    raise RunError(f"{path.name}: line {reader.line_num}: expected two columns, uid and caption, found "
                                   f"{len(row)}; put captions with commas in quotes")  # fmt: skip
                uid, caption = row[0].strip(), " ".join(row[1].split())
                if reader.line_num == 1 and [uid.lower(), caption.lower()] == ["uid", "caption"]:
                    continue
                captions[uid] = caption
    except csv.Error as error:
        raise RunError(f"{path.name}: line {reader.line_num}: this is no CSV ({error}); export it again") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path.name}: expected UTF-8, found the byte {error.object[error.start]:#04x} at {error.start}; "
                       "save it as UTF-8") from error  # fmt: skip
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; check the path") from error
    return captions


def with_captions(entries: Iterable[Entry], captions: Mapping[str, str]) -> list[Entry]:
    """Return the entries with the captions of their uids; those without one keep what they had."""
    joined = [
        replace(entry, provenance=replace(entry.provenance, caption=captions[entry.uid]))
        if captions.get(entry.uid)
        else entry
        for entry in entries
    ]
    found = sum(entry.uid in captions for entry in joined)
    LOG.info("captions for %d of %d objects", found, len(joined))
    return joined
