"""What is written beside converted weights: sources.json for programs, README.md (a model card) for people.

Both say where the weights come from, under which terms, and the SHA-256 of every file that was read and written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.checkpoints.assemble import Missing
from engine.checkpoints.releases import RELEASES, Release
from engine.errors import CheckpointError
from engine.files import write_bytes

SOURCES = "sources.json"
CARD = "README.md"
HUB_LICENCES = {"MIT": "mit", "CC-BY-NC-4.0": "cc-by-nc-4.0", "Apache-2.0": "apache-2.0"}
"""SPDX -> what a card's header on the hub calls it; everything else is "other"."""


@dataclass(frozen=True)
class SourceFile:
    """A file that was converted."""

    file: str
    """Its name."""
    sha256: str
    """Of its bytes."""
    size_bytes: int
    """Its size."""
    release: str
    """A name of RELEASES."""


@dataclass(frozen=True)
class Origin:
    """Where a folder of weights comes from."""

    sources: Mapping[str, tuple[SourceFile, ...]] = field(default_factory=dict)
    """Component -> the files that it was made of."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the folder -> SHA-256, of everything that was written."""
    how: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Component -> precision and choices of its conversion."""

    @property
    def releases(self) -> tuple[Release, ...]:
        """The releases that are in it, each once."""
        names = dict.fromkeys(source.release for files in self.sources.values() for source in files)
        return tuple(RELEASES[name] for name in names)


def licences_of(origin: Origin) -> list[dict[str, str]]:
    """Return the terms, one entry a release, as reports quote them."""
    return [
        {
            "name": release.title,
            "licence": release.licence.expression,
            "page": release.licence.page,
            "note": release.licence.note,
            "credit": release.credit,
        }
        for release in origin.releases
    ]


def read_origin(folder: Path) -> Origin:
    """Read sources.json; nothing if there is none. Raises CheckpointError if it is not ours."""
    path = folder / SOURCES
    if not path.is_file():
        return Origin()
    try:
        content = json.loads(path.read_text())
        sources = {name: tuple(SourceFile(**one) for one in files) for name, files in content["sources"].items()}
        return Origin(sources, dict(content["files"]), dict(content["how"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete it and convert the weights again") from None


def write_origin(folder: Path, origin: Origin, title: str, missing: Sequence[Missing]) -> None:
    """Write sources.json and README.md."""
    content: dict[str, Any] = {
        "licences": licences_of(origin),
        "sources": {name: [asdict(one) for one in files] for name, files in origin.sources.items()},
        "how": origin.how,
        "files": dict(sorted(origin.files.items())),
    }
    write_bytes(folder / SOURCES, (json.dumps(content, indent=1) + "\n").encode())
    write_bytes(folder / CARD, card(origin, title, missing).encode())


def card(origin: Origin, title: str, missing: Sequence[Missing]) -> str:
    """Return the model card in Markdown, with the header that the hub reads."""
    lines = [
        *_header(origin), "", f"# {title}", "",
        "Weights for Turntable, made by `turntable convert` from the files below. Use: `turntable generate --weights` and "
        "this folder, or its id on the hub. Numbers are unchanged but for the type that they are stored in.",
        "", "## Licence", "",
    ]  # fmt: skip
    for release in origin.releases:
        note = f" {release.licence.note[:1].upper()}{release.licence.note[1:]}." if release.licence.note else ""
        lines.append(f"- **{release.title}**: {release.licence.expression}, as stated at {release.licence.page}.{note}")
    lines += ["", "## Credit", "", *(f"- {credit}" for credit in dict.fromkeys(r.credit for r in origin.releases))]
    if missing:
        lines += ["", "## Still missing", "", "Convert these into the same folder:", ""]
        lines += [f"- {one.component} ({'needed' if one.required else 'optional'}): {one.get}" for one in missing]
    rows = [
        (name, one.file, RELEASES[one.release].title, origin.how[name]["precision"], one.size_bytes, f"`{one.sha256}`")
        for name, files in origin.sources.items()
        for one in files
    ]
    lines += ["", "## Made from", "", *_table(("component", "file", "release", "precision", "bytes", "SHA-256"), rows)]
    hashes = [(name, f"`{digest}`") for name, digest in sorted(origin.files.items())]
    return "\n".join([*lines, "", "## Files", "", *_table(("file", "SHA-256"), hashes)]) + "\n"


def _header(origin: Origin) -> list[str]:
    expressions = list(dict.fromkeys(release.licence.expression for release in origin.releases))
    single = HUB_LICENCES.get(expressions[0]) if len(expressions) == 1 else None
    name = [] if single else [f"license_name: {' AND '.join(expressions)}"]
    return ["---", f"license: {single or 'other'}", *name, "library_name: turntable3d", "---"]


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in row)} |" for row in cells]
