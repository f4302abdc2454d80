"""README, Makefile and CI name commands, flags, targets and files that exist."""

import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/training.md", "examples/README.md", "Makefile")
MAKEFILE = (REPOSITORY / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):(?!=)", MAKEFILE, re.MULTILINE))

COMMANDS = {
    "turntable": [sys.executable, "-c", "import sys; from engine.cli import main; sys.exit(main())"],
    "turntable-farm": [sys.executable, "-c", "import sys; from render_farm.cli import main; sys.exit(main())"],
    "python -m blender_addon.headless": [sys.executable, "-m", "blender_addon.headless"],
}
"""How a person types a program, and how a test starts it without relying on the path."""


def command_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (program, arguments) of each line of code that starts one of ours; continued lines are joined."""
    for line in text.replace("\\\n", " ").splitlines():
        code = line.strip().removeprefix("$ ").removeprefix("@")
        for program in COMMANDS:
            if code == program or code.startswith(program + " "):
                yield program, shlex.split(code.removeprefix(program), comments=True)


def in_fences(markdown: str) -> str:
    """Return the fenced code of a page, and its inline code that starts one of our programs, a line each."""
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S))
    return "\n".join([*fenced, *inline])


def named(document: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return (program, verb, flags) of every command in a document."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    found = []
    for program, arguments in command_lines(in_fences(text) if document.endswith(".md") else text):
        verb = arguments[0] if arguments and re.fullmatch(r"[a-z][a-z-]*", arguments[0]) else ""
        verb = "" if program.startswith("python") else verb
        flags = tuple(word.split("=")[0] for word in arguments if word.startswith("--"))
        found.append((program, verb, flags))
    return found


@functools.cache
def help_text(program: str, verb: str) -> str:
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(REPOSITORY)}
    command = [*COMMANDS[program], *([verb] if verb else []), "--help"]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.returncode == 0, f"{program} {verb} --help: {child.stderr}"
    return child.stdout + child.stderr


CASES = sorted({(document, *command) for document in DOCUMENTS for command in named(document)})


@pytest.mark.parametrize(("document", "program", "verb", "flags"), CASES)
def test_every_command_in_the_documents_exists(document, program, verb, flags):
    text = help_text(program, verb)
    missing = [flag for flag in flags if not re.search(rf"(?<![\w-]){re.escape(flag)}(?![\w-])", text)]
    assert missing == [], f"{document} names flags that {program} {verb} does not have"


def test_the_demo_uses_every_program():
    assert {program for program, _, _ in named("Makefile")} == set(COMMANDS)


def test_commands_are_found_in_fences_continued_lines_and_inline():
    page = "Run `turntable doctor` or\n```sh\n$ turntable fit a \\\n    --out b  # why\n```\nand `make x`.\n"
    assert list(command_lines(in_fences(page))) == [
        ("turntable", ["fit", "a", "--out", "b"]),
        ("turntable", ["doctor"]),
    ]


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", ".ci/run"])
def test_every_make_target_in_the_documents_exists(document):
    code = (REPOSITORY / document).read_text(encoding="utf-8")
    code = in_fences(code) if document.endswith(".md") else code
    named_targets = set(re.findall(r"(?:^|[\n;&] *)make ([a-z][a-z-]*)", code))
    assert named_targets <= TARGETS


def test_make_lists_every_target():
    listing = subprocess.run(["make"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in TARGETS:
        assert f"  make {target} " in listing


@pytest.mark.parametrize("document", ["README.md", "CHANGELOG.md", "engine/geometry/CONVENTIONS.md"])
def test_every_linked_file_exists(document):
    path = REPOSITORY / document
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_ci_can_be_executed():
    assert os.access(REPOSITORY / ".ci" / "run", os.X_OK)


def test_the_licence_is_the_gpl_and_every_manifest_agrees():
    licence = (REPOSITORY / "LICENSE").read_text()
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007" in licence
    assert 'license = "GPL-3.0-or-later"' in (REPOSITORY / "pyproject.toml").read_text()
    assert '"SPDX:GPL-3.0-or-later"' in (REPOSITORY / "blender_addon" / "blender_manifest.toml").read_text()
