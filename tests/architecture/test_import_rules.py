"""The import contracts of pyproject.toml hold, bite, and are true at run time as well."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOMS = ("engine", "render_farm", "blender_addon")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"

BROKEN = {
    "The add-on carries no heavy dependency": ("blender_addon/intruder.py", "import engine.geometry"),
    "The engine never sees Blender": ("engine/intruder.py", "import bpy"),
    "Geometry, files and protocol are light": ("engine/geometry/intruder.py", "def late():\n    import torch"),
    "The farm uses only the light engine rooms": ("render_farm/intruder.py", "import engine.splats"),
    "Only the worker imports bpy": ("render_farm/blender_intruder.py", "import bpy"),
    "The worker is started, never imported": ("render_farm/starter.py", "import render_farm.worker"),
}
"""One offence for each contract; the torch one is inside a function, where a lazy import would hide."""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages in a folder."""
    command = [sys.executable, "-c", LINT, "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_contracts_are_kept(repository):
    result = lint_imports(repository)
    assert result.returncode == 0, result.stdout
    for name in BROKEN:
        assert f"{name} KEPT" in result.stdout


def test_each_contract_bites(repository, tmp_path):
    shutil.copy(repository / "pyproject.toml", tmp_path)
    for room in ROOMS:
        shutil.copytree(repository / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in BROKEN.values():
        (tmp_path / name).write_text(code + "\n")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert [name for name in BROKEN if f"{name} BROKEN" not in result.stdout] == []


def test_every_contract_has_its_offence_here(repository):
    tomllib = pytest.importorskip("tomllib")
    settings = tomllib.loads((repository / "pyproject.toml").read_text())
    assert {contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]} == set(BROKEN)


@pytest.mark.parametrize(
    "module",
    ["engine.geometry", "engine.files", "engine.errors", "render_farm.cli", "render_farm.cli.work.dispatch",
     "render_farm.run.finisher"],
)  # fmt: skip
def test_light_rooms_bring_neither_torch_nor_blender(module, repository):
    code = (
        f"import sys, {module}; heavy = {{'torch', 'bpy', 'pymeshlab', 'numba', 'gsplat', 'trimesh'}} & set(sys.modules); "
        "sys.exit(f'brought {sorted(heavy)}' if heavy else 0)"
    )
    child = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


def test_asking_the_engine_for_help_loads_no_blender(repository):
    code = "import sys, engine.cli; sys.exit('bpy' in sys.modules or 'pymeshlab' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr


@pytest.mark.parametrize("name", ["engine/doctor.py", "engine/system_libraries.py"])
def test_the_doctor_needs_nothing_installed(name, repository):
    roots = set()
    for node in ast.walk(ast.parse((repository / name).read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert roots <= set(sys.stdlib_module_names) | {"engine"}
