"""Licences as their sources spell them, as SPDX ids; and whether a run wants them.

Expressions (AND, OR, WITH, parentheses) and the list of ids are `license-expression`'s; free texts of the sources are ours.
"""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

from license_expression import AND, OR, ExpressionError, LicenseSymbol, Licensing, get_spdx_licensing

ABBREVIATED = re.compile(r"(?:cc[ -]?)?(by(?:[ -](?:nc|nd|sa))*)(?:[ -](\d)(?:\.(\d))?)?")
"""Sketchfab's codes (by, by-sa, by-nc-nd) and what people write for them (CC BY-SA 3.0)."""
WORDS = {"attribution": "by", "non commercial": "nc", "noncommercial": "nc", "no derivatives": "nd",
         "no derivs": "nd", "noderivatives": "nd", "share alike": "sa", "sharealike": "sa"}  # fmt: skip
NAMES = {
    "cc0": "CC0-1.0", "cc0 1.0": "CC0-1.0", "cc0 1.0 universal": "CC0-1.0", "creative commons zero v1.0 universal": "CC0-1.0",
    "creative commons - public domain dedication": "CC0-1.0", "public domain": "CC0-1.0", "cc-0": "CC0-1.0",
    "creative commons 0": "CC0-1.0", "mit license": "MIT", "apache license 2.0": "Apache-2.0", "apache 2.0": "Apache-2.0",
    "the unlicense": "Unlicense", "boost software license 1.0": "BSL-1.0", "isc license": "ISC", "zlib license": "Zlib",
    'bsd 2-clause "simplified" license': "BSD-2-Clause", 'bsd 3-clause "new" or "revised" license': "BSD-3-Clause",
    "bsd": "BSD-3-Clause", "bsd - 3 clause": "BSD-3-Clause",
    "gnu general public license v2.0": "GPL-2.0-only", "gnu general public license v3.0": "GPL-3.0-only",
    "gnu affero general public license v3.0": "AGPL-3.0-only", "gnu lesser general public license v2.1": "LGPL-2.1-only",
    "gnu lesser general public license v3.0": "LGPL-3.0-only", "mozilla public license 2.0": "MPL-2.0",
    "eclipse public license 2.0": "EPL-2.0", "gnu - gpl": "GPL-2.0-or-later", "gnu - lgpl": "LGPL-2.1-or-later",
}  # fmt: skip
"""As GitHub, Thingiverse and Sketchfab spell them, in small letters."""
OWN = "LicenseRef-"
"""How ids begin that stand for terms outside the list (SPDX 2.3, annex D)."""
NO_LICENCE = frozenset(
    {"", "none", "unknown", "other", "n/a", "nan", "no license", "all rights reserved", "noassertion"}
)


@lru_cache(65536)
def spdx(text: str) -> str:
    """Return the SPDX expression of a licence as a source spells it; empty where nothing is known, else the text as it is.

    A Creative Commons licence without a version is taken for 4.0, which Sketchfab's codes mean.
    """
    text = " ".join(text.split())
    if ";" in text:  # several parts of one object under several licences
        each = dict.fromkeys(spdx(part) or "NOASSERTION" for part in text.split(";"))
        return " AND ".join(f"({part})" if " OR " in part else part for part in each)
    small = text.lower()
    if small in NO_LICENCE:
        return ""
    if small in NAMES:
        return NAMES[small]
    words = _spoken(small)
    short = ABBREVIATED.fullmatch(words)
    if short is None:
        tree = _parse(text)
        known = tree is not None and all(map(_is_known, _spdx().license_symbols(tree)))
        return str(tree) if known else text
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


def is_allowed(licence: str, patterns: Sequence[str]) -> bool:
    """Whether a run wants this licence.

    Args:
        licence: SPDX expression: of OR one must be allowed, of AND all.
        patterns: SPDX ids, '*' at the end for any ending (CC-BY* is CC-BY-NC-4.0 as well; CC-BY-4* is not); '?' lets what
            is no SPDX id through. Empty allows everything.
    """
    if not patterns:
        return True
    tree = _parse(licence)
    return "?" in patterns if tree is None else _allows(tree, patterns)


@cache
def _spdx() -> Licensing:
    """The list of ids: read when it is first needed."""
    return get_spdx_licensing()


@lru_cache(65536)
def _parse(text: str) -> Any:
    """The tree of an expression, of any words; None where it is none."""
    try:
        return _spdx().parse(text)
    except (ExpressionError, AssertionError, IndexError, RecursionError):  # the last three: '()', 'a (b', a deep one
        return None


def _is_known(symbol: LicenseSymbol) -> bool:
    return symbol.key in _spdx().known_symbols or symbol.key.startswith(OWN)


def _allows(tree: Any, patterns: Sequence[str]) -> bool:
    if isinstance(tree, OR):
        return any(_allows(part, patterns) for part in tree.args)
    if isinstance(tree, AND):
        return all(_allows(part, patterns) for part in tree.args)
    symbol = getattr(tree, "license_symbol", tree)  # an exception (WITH) only adds permissions
    return _matches(symbol.key, patterns) if _is_known(symbol) else "?" in patterns


def _matches(licence: str, patterns: Sequence[str]) -> bool:
    small = licence.lower()
    return any(
        small.startswith(pattern[:-1].lower()) if pattern.endswith("*") else small == spdx(pattern).lower()
        for pattern in patterns
    )
