"""constraints.txt pins whatever an installation brings, and pyproject.toml states whatever the code imports."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): Version(version)
    for name, version in (
        line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if "==" in line
    )
}
INSTALLED_EXTRAS = ("farm", "cluster", "s3", "models", "mesh", "dev")
"""What `make setup` installs."""
WITH_TORCH = re.compile(r"nvidia-|cuda-|triton$")
"""A CUDA build of torch brings these, each pinned by torch itself."""


def stated(extras: tuple[str, ...]) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("requirement", stated(tuple(PROJECT["optional-dependencies"])), ids=str)
def test_every_stated_dependency_is_pinned_within_its_range(requirement):
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_line_is_an_exact_pin_in_order():
    lines = [line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert lines == sorted(lines)


def test_what_the_dependencies_depend_on_is_pinned_too():
    todo, seen, unpinned, wrong = stated(INSTALLED_EXTRAS), set(), set(), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen or WITH_TORCH.match(name):
            continue
        seen.add((name, *sorted(requirement.extras)))
        if name not in PINS:
            unpinned.add(name)
            continue
        if PINS[name] not in requirement.specifier:
            wrong.add(f"{requirement}, pinned to {PINS[name]}")
        todo += needs(requirement)
    assert unpinned == set()
    assert wrong == set()


def needs(requirement: Requirement) -> list[Requirement]:
    """Return what an installed distribution requires here, with the extras asked for; nothing if it is not here."""
    try:
        lines = importlib.metadata.requires(requirement.name) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    asked = ("", *requirement.extras)
    every = [Requirement(line) for line in lines]
    return [one for one in every if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in asked)]


def test_numpy_and_pyarrow_suit_blenders_bpy():
    # bpy 4.5 and 5.0 require numpy < 2; pyarrow 26 raises at import with it.
    assert PINS["numpy"] < Version("2")
    assert PINS["pyarrow"] < Version("26")


def test_torchvision_stays_in_an_extra_of_its_own():
    # PyPI's torchvision would replace torch.
    everywhere = stated(tuple(extra for extra in PROJECT["optional-dependencies"] if extra != "flow"))
    assert "torchvision" not in {canonicalize_name(requirement.name) for requirement in everywhere}


DISTRIBUTIONS = {"PIL": "pillow", "OpenEXR": "openexr", "bmesh": "bpy", "mathutils": "bpy", "skimage": "scikit-image"}
"""Modules whose distribution has another name."""


@pytest.mark.parametrize("room", ["engine", "render_farm"])
def test_every_imported_library_is_stated(room):
    known = {canonicalize_name(requirement.name) for requirement in stated(tuple(PROJECT["optional-dependencies"]))}
    imported = {name for path in (REPOSITORY / room).rglob("*.py") for name in imported_roots(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"engine", "render_farm"}
    assert {name for name in foreign if canonicalize_name(DISTRIBUTIONS.get(name, name)) not in known} == set()


def imported_roots(path: Path) -> set[str]:
    """Return the top-level names that a file imports absolutely."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            roots.add((node.module or "").split(".")[0])
    return roots
