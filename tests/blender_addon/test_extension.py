"""The add-on as a Blender extension: valid, built into one zip, installed, enabled, used, disabled."""

import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.blender
ADDON = Path(__file__).resolve().parents[2] / "blender_addon"


def extension_tool(*arguments: object) -> subprocess.CompletedProcess[str]:
    spec = find_spec("bpy")  # found without importing it: bpy never shares pytest's process
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("bpy is not installed: pip install bpy==4.5.15")
    tools = list(Path(spec.submodule_search_locations[0]).glob("*.*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    return subprocess.run(
        [sys.executable, str(tools[0]), *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built zip."""
    out = tmp_path_factory.mktemp("extension")
    done = extension_tool("build", "--source-dir", ADDON, "--output-dir", out)
    assert done.returncode == 0, done.stdout + done.stderr
    (zip_path,) = out.glob("*.zip")
    return zip_path


def test_the_manifest_is_valid() -> None:
    done = extension_tool("validate", ADDON)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_zip_holds_every_module_and_nothing_else(package: Path) -> None:
    names = {name.removeprefix("turntable/") for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert names == {path.name for path in ADDON.glob("*.py")} | {"blender_manifest.toml"}


INSTALL = """
found = {}
bpy.ops.extensions.package_install_files(repo="user_default", enable_on_install=True, filepath=sys.argv[3])
name = "bl_ext.user_default.turntable"
found["enabled"] = name in bpy.context.preferences.addons
found["result"] = sorted(bpy.ops.turntable.import_result(directory=sys.argv[4] + "/"))
found["collection"] = "boxes" in bpy.data.collections
found["undo"] = "UNDO" in bpy.types.TURNTABLE_OT_import_result.bl_options
found["module"] = bpy.types.TURNTABLE_OT_import_result.__module__
try:
    bpy.ops.turntable.import_result(directory=sys.argv[5])
except RuntimeError as error:
    found["error"] = str(error).strip()
found["menu"] = sum(f.__module__ == name + ".operators" for f in bpy.types.TOPBAR_MT_file_import.draw._draw_funcs)
bpy.ops.preferences.addon_disable(module=name)
found["gone"] = not hasattr(bpy.types, "TURNTABLE_OT_import_result")
found["menu_after"] = sum(
    f.__module__ == name + ".operators" for f in bpy.types.TOPBAR_MT_file_import.draw._draw_funcs)
answer(found)
"""


def test_it_installs_and_works(blender: Callable[..., Any], package: Path, result_folder: Path, tmp_path: Path) -> None:
    found = blender(INSTALL, package, result_folder, tmp_path / "nothing")
    assert found["enabled"]
    assert (found["result"], found["collection"], found["undo"]) == (["FINISHED"], True, True)
    assert found["module"] == "bl_ext.user_default.turntable.operators"
    nothing = tmp_path / "nothing"
    expected = f"Error: {nothing}: expected a result folder, found none. Choose the folder that holds orbit.json."
    assert found["error"] == expected
    assert (found["menu"], found["menu_after"], found["gone"]) == (1, 0, True)
