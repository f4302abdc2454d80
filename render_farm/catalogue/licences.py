"""Licences as their sources spell them, as SPDX ids; and whether a run wants them."""

import re
from collections.abc import Sequence

ABBREVIATED = re.compile(r"(?:cc[ -]?)?(by(?:[ -](?:nc|nd|sa))*)(?:[ -](\d)(?:\.(\d))?)?")
"""Sketchfab's codes (by, by-sa, by-nc-nd) and what people write for them (CC BY-SA 3.0)."""
WORDS = {"attribution": "by", "non commercial": "nc", "noncommercial": "nc", "no derivatives": "nd",
         "no derivs": "nd", "noderivatives": "nd", "share alike": "sa", "sharealike": "sa"}  # fmt: skip
NAMES = {
    "cc0": "CC0-1.0", "cc0 1.0": "CC0-1.0", "cc0 1.0 universal": "CC0-1.0", "creative commons zero v1.0 universal": "CC0-1.0",
    "creative commons - public domain dedication": "CC0-1.0", "public domain": "CC0-1.0", "cc-0": "CC0-1.0",
    "creative commons 0": "CC0-1.0", "cc0-1.0": "CC0-1.0",
    "mit license": "MIT", "mit": "MIT", "apache license 2.0": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "the unlicense": "Unlicense", "boost software license 1.0": "BSL-1.0", "isc license": "ISC", "zlib license": "Zlib",
    'bsd 2-clause "simplified" license': "BSD-2-Clause", 'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "bsd": "BSD-3-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd - 3 clause": "BSD-3-Clause",
    "gnu general public license v2.0": "GPL-2.0-only", "gnu general public license v3.0": "GPL-3.0-only",
    "gnu affero general public license v3.0": "AGPL-3.0-only", "gnu lesser general public license v2.1": "LGPL-2.1-only",
    "gnu lesser general public license v3.0": "LGPL-3.0-only", "mozilla public license 2.0": "MPL-2.0",
    "eclipse public license 2.0": "EPL-2.0", "gnu - gpl": "GPL-2.0-or-later", "gnu - lgpl": "LGPL-2.1-or-later",
}  # fmt: skip
"""As GitHub, Thingiverse and Sketchfab spell them, in small letters."""
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*(?: (?:AND|OR|WITH) [A-Za-z0-9][A-Za-z0-9.+-]*)*")
NO_LICENCE = frozenset(
    {"", "none", "unknown", "other", "n/a", "nan", "no license", "all rights reserved", "noassertion"}
)


def spdx(text: str) -> str:
    """Return the SPDX id of a licence as a source spells it; empty where nothing is known, else the text as it is.

    A Creative Commons licence without a version is taken for 4.0, which Sketchfab's codes mean.
    """
    text = " ".join(text.split())
    if ";" in text:  # several parts of one object under several licences
        return " AND ".join(dict.fromkeys(spdx(part) for part in text.split(";")))
    small = text.lower()
    if small in NO_LICENCE:
        return ""
    if small in NAMES:
        return NAMES[small]
    words = _spoken(small)
    short = ABBREVIATED.fullmatch(words)
    if short is None:
        return text
    parts = re.split("[ -]", short[1])
    kept = [part for part in ("by", "nc", "nd", "sa") if part in parts]
    return f"CC-{'-'.join(kept).upper()}-{short[2] or '4'}.{short[3] or '0'}"


def _spoken(text: str) -> str:
    """'creative commons - attribution - share alike' as 'by sa'; anything else as it is."""
    if "attribution" not in text:
        return text
    text = " ".join(text.replace("-", " ").split())
    for phrase, code in WORDS.items():
        text = text.replace(phrase, code)
    text = re.sub(r"\b(creative commons|cc|license|licence|international|unported)\b", " ", text)
    return " ".join(re.sub(r"(?<!\d)\.|[^a-z0-9.]", " ", text).split())


def is_known(licence: str) -> bool:
    """Whether this looks like an SPDX id or expression, not like free text."""
    return ID.fullmatch(licence) is not None


def is_allowed(licence: str, patterns: Sequence[str]) -> bool:
    """Whether a run wants this licence.

    Args:
        licence: SPDX id or expression: of OR one must be allowed, of AND all.
        patterns: SPDX ids, '*' at the end for any ending (CC-BY* is CC-BY-NC-4.0 as well; CC-BY-4* is not); '?' lets unknown licences through. Empty allows everything.
    """
    if not patterns:
        return True
    if not is_known(licence):
        return "?" in patterns
    return any(
        all(_matches(part.split(" WITH ")[0], patterns) for part in choice.split(" AND "))
        for choice in licence.split(" OR ")
    )


def _matches(licence: str, patterns: Sequence[str]) -> bool:
    small = licence.lower()
    return any(
        small.startswith(pattern[:-1].lower()) if pattern.endswith("*") else small == pattern.lower()
        for pattern in patterns
    )
