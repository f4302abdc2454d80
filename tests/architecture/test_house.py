"""House rules that no linter holds: docstrings, small files, empty __init__ files, named by noun."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
ROOMS = ("engine", "render_farm", "blender_addon")
MAX_LINES = 400

SOURCES = sorted(path for room in ROOMS for path in (REPOSITORY / room).rglob("*.py"))
TESTS = sorted((REPOSITORY / "tests").rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", SOURCES + TESTS, ids=name_of)
def test_files_say_what_they_are(path):
    assert ast.get_docstring(parsed(path))
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


def is_work(node: ast.stmt) -> bool:
    """Whether a statement of an __init__ does more than document, re-export or (add-on) define registration."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return False
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)] != ["__all__"]
    return not (isinstance(node, ast.FunctionDef) and node.name in {"register", "unregister"})


@pytest.mark.parametrize("path", [path for path in SOURCES if path.name == "__init__.py"], ids=name_of)
def test_init_files_do_no_work(path):
    assert [ast.unparse(node) for node in parsed(path).body if is_work(node)] == []
    assert "(being built)" not in path.read_text(encoding="utf-8")


def test_only_the_addon_registers():
    for room in ("engine", "render_farm"):
        for path in (REPOSITORY / room).rglob("__init__.py"):
            assert not [node for node in parsed(path).body if isinstance(node, ast.FunctionDef)], path


def public_without_docstring(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Names of public functions, classes and methods that lack a docstring."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if not ast.get_docstring(node) and not is_inherited(node):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from public_without_docstring(node.body, f"{prefix}{node.name}.")


def is_inherited(node: ast.stmt) -> bool:
    """Whether a method overrides a documented one, such as torch.autograd.Function's forward and backward."""
    return isinstance(node, ast.FunctionDef) and node.name in {"forward", "backward"}


@pytest.mark.parametrize("path", [path for path in SOURCES if "blender_addon" not in path.parts], ids=name_of)
def test_what_is_public_has_a_docstring(path):
    assert list(public_without_docstring(parsed(path).body)) == []


def test_the_docstring_rule_bites():
    code = "class A:\n    '''Doc.'''\n    def b(self): ...\n    def _c(self): ...\ndef d(): ...\n"
    assert list(public_without_docstring(ast.parse(code).body)) == ["A.b", "d"]
