"""Every spelling that the sources use, and what a run lets through."""

import pytest

from render_farm.catalogue.licences import is_allowed, spdx


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Sketchfab's codes, as Objaverse's annotations hold them
        ("by", "CC-BY-4.0"), ("by-sa", "CC-BY-SA-4.0"), ("by-nd", "CC-BY-ND-4.0"), ("by-nc", "CC-BY-NC-4.0"),
        ("by-nc-sa", "CC-BY-NC-SA-4.0"), ("by-nc-nd", "CC-BY-NC-ND-4.0"), ("cc0", "CC0-1.0"),
        # Thingiverse, GitHub and Smithsonian, as Objaverse-XL holds them
        ("Creative Commons - Attribution", "CC-BY-4.0"), ("Creative Commons - Attribution - Share Alike", "CC-BY-SA-4.0"),
        ("Creative Commons - Attribution - Non-Commercial - No Derivatives", "CC-BY-NC-ND-4.0"),
        ("Creative Commons - Attribution - Non-Commercial - Share Alike", "CC-BY-NC-SA-4.0"),
        ("Creative Commons - Public Domain Dedication", "CC0-1.0"), ("MIT License", "MIT"),
        ("Apache License 2.0", "Apache-2.0"), ("GNU General Public License v3.0", "GPL-3.0-only"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"), ("CC0", "CC0-1.0"),
        # as people write it
        ("CC BY-SA 3.0", "CC-BY-SA-3.0"), ("cc-by-4.0", "CC-BY-4.0"), ("CC-BY-NC-4.0", "CC-BY-NC-4.0"), ("MIT-0", "MIT-0"),
        ("CC-BY-4.0; CC0-1.0", "CC-BY-4.0 AND CC0-1.0"), ("  ", ""), ("None", ""), ("NOASSERTION", ""),
        ("my own terms", "my own terms"), ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        # expressions: any case, parentheses, ids that SPDX has renamed
        ("mit or apache-2.0", "MIT OR Apache-2.0"), ("GPL-2.0+", "GPL-2.0-or-later"), ("LicenseRef-mine", "LicenseRef-mine"),
        ("MIT OR (Apache-2.0 AND CC0-1.0)", "MIT OR (Apache-2.0 AND CC0-1.0)"),
        ("by; MIT OR GPL-2.0-only", "CC-BY-4.0 AND (MIT OR GPL-2.0-only)"), ("by; None", "CC-BY-4.0 AND NOASSERTION"),
        # what the parser stumbles over is a text like others
        ("MIT License (Expat)", "MIT License (Expat)"), ("()", "()"), ("MIT AND", "MIT AND"), ("a (b", "a (b"),
    ],
)  # fmt: skip
def test_spdx(text: str, expected: str) -> None:
    assert spdx(text) == expected
    assert spdx(expected) == expected


@pytest.mark.parametrize(
    ("licence", "patterns", "allowed"),
    [
        ("CC-BY-4.0", (), True), ("", (), True), ("CC-BY-4.0", ("CC0-1.0",), False), ("CC0-1.0", ("cc0-1.0",), True),
        ("CC-BY-3.0", ("CC-BY*",), True), ("CC-BY-NC-4.0", ("CC-BY-4*", "CC-BY-3*"), False), ("", ("CC-BY*",), False),
        ("", ("CC-BY*", "?"), True), ("my own terms", ("*",), False), ("my own terms", ("?",), True), ("MIT", ("?",), False),
        ("MIT", ("*",), True), ("MIT OR GPL-3.0-only", ("MIT",), True), ("MIT AND GPL-3.0-only", ("MIT",), False),
        ("MIT AND CC0-1.0 OR X", ("MIT", "CC0*"), True), ("GPL-2.0-only WITH Classpath", ("GPL*",), True),
        ("MIT OR (GPL-3.0-only AND CC0-1.0)", ("MIT",), True), ("(MIT OR GPL-3.0-only) AND CC0-1.0", ("MIT",), False),
        ("(MIT OR GPL-3.0-only) AND CC0-1.0", ("MIT", "CC0*"), True), ("CC-BY-4.0 AND NOASSERTION", ("CC*",), False),
        ("CC-BY-4.0 AND NOASSERTION", ("CC*", "?"), True), ("Freeware", ("*",), False), ("LicenseRef-mine", ("*",), True),
        ("GPL-2.0-or-later", ("GPL-2.0+",), True), ("()", ("?",), True), ("()", ("*",), False),
    ],
)  # fmt: skip
def test_is_allowed(licence: str, patterns: tuple[str, ...], allowed: bool) -> None:
    assert is_allowed(licence, patterns) is allowed
