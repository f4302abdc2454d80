"""The doctor on this machine, and on one whose libraries are missing, broken, crashing or slow (shadowed by files)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine import doctor, system_libraries
from engine.doctor import Ability, Check, Diagnosis, diagnose, format_report

HIDDEN = ["bpy", "diffusers", "embreex", "imageio_ffmpeg", "numba", "pymeshlab", "rtree", "skimage", "torch", "xatlas"]


def shadow(folder: Path, module: str, code: str) -> None:
    """Put a file before the installed module on the children's path."""
    (folder / f"{module}.py").write_text(code)


@pytest.fixture
def shadows(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def test_on_a_bare_machine_every_piece_becomes_a_line_with_its_fix(shadows, monkeypatch):
    for module in HIDDEN:
        shadow(shadows, module, f"raise ModuleNotFoundError(\"No module named '{module}'\")")
    monkeypatch.setenv("PATH", "")  # no other Python and no Blender either
    diagnosis = diagnose()
    assert not diagnosis.ok
    assert {ability.name: ability.can for ability in diagnosis.abilities} == dict.fromkeys(
        ["render", "generate", "reconstruct", "mesh", "import"], False
    )
    for name in ["torch", "numba", "diffusers", "bpy", "pymeshlab", "xatlas", "embreex", "scikit-image", "rtree"]:
        check = diagnosis.check(name)
        assert check.state == "missing"
        assert check.found.startswith("ModuleNotFoundError: No module named '")
        assert check.fix.startswith("pip install -c constraints.txt ")
    assert diagnosis.check("torch").fix == "pip install -c constraints.txt torch"
    assert diagnosis.check("bpy").fix == "pip install -c constraints.txt -e '.[farm]'"
    assert diagnosis.check("ffmpeg").state == "warn"
    assert [ability.why for ability in diagnosis.abilities] == [
        "lacks bpy",
        "lacks torch, diffusers",
        "lacks torch",
        "lacks scikit-image, xatlas, embreex, rtree, pymeshlab",
        "lacks bpy, and no Blender is found",
    ]
    assert format_report(diagnosis).endswith("Not everything works here: see the fixes above.")


@pytest.mark.slow
def test_one_missing_piece_costs_only_what_needs_it(shadows):
    shadow(shadows, "xatlas", "raise ImportError('libfoo.so.1: cannot open shared object file')")
    diagnosis = diagnose()
    assert diagnosis.check("xatlas").found == "ImportError: libfoo.so.1: cannot open shared object file"
    can = {ability.name: ability.can for ability in diagnosis.abilities}
    assert can.pop("mesh") is False
    assert can.pop("generate") is False
    states = {name: diagnosis.check(name).state for name in ("bpy", "torch", "numba")}
    assert can["render"] == can["import"] == (states["bpy"] != "missing")
    assert can["reconstruct"] == (states["torch"] == states["numba"] == "ok")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crashed on import (signal 11)"),
        ("import os; os._exit(3)", "ended with status 3"),
        ("import time; time.sleep(60)", "did not answer in 1 s"),
        ("raise RuntimeError('first line\\nsecond line')", "second line"),
    ],
    ids=["segfault", "exit", "hang", "raise"],
)
def test_a_library_that_takes_its_process_down_is_only_a_line(shadows, monkeypatch, code, words):
    shadow(shadows, "pymeshlab", code)
    if "sleep" in code:
        monkeypatch.setattr(doctor, "PROBE_SECONDS", 1.0)
    assert doctor._ask(doctor._PYMESHLAB) == {"error": words}


def test_a_python_that_does_not_exist_is_only_a_line(tmp_path):
    assert "No such file" in doctor._ask(doctor._BPY, str(tmp_path / "python"))["error"]


@pytest.mark.parametrize(
    ("answer", "states", "words"),
    [
        (
            {"version": "2.13.0", "threads": 4, "cuda": "13.0", "device": "H100", "memory_gb": 85.0,
             "gsplat": True, "compiled": True},
            ["ok", "ok", "ok"], ["2.13.0, 4 threads", "H100, 85 GB, CUDA 13.0", "compiled"],
        ),
        (
            {"version": "2.13.0", "threads": 2, "cuda": "13.0", "device": None, "memory_gb": None,
             "gsplat": True, "compiled": False},
            ["ok", "warn", "warn"],
            ["2.13.0, 2 threads", "no CUDA device: everything runs on the processor, more slowly",
             "not used without CUDA; numba renders instead"],
        ),
        (
            {"version": "2.13.0", "threads": 2, "cuda": "13.0", "device": "H100", "memory_gb": 85.0,
             "gsplat": False, "compiled": False},
            ["ok", "ok", "warn"],
            ["2.13.0, 2 threads", "H100, 85 GB, CUDA 13.0", "not installed; numba renders instead"],
        ),
    ],
    ids=["cuda", "cuda torch, no device", "cuda, no gsplat"],
)  # fmt: skip
def test_torch_lines(answer, states, words):
    checks = doctor._torch_checks(answer)
    assert [check.state for check in checks] == states
    assert [check.found for check in checks] == words


def test_bpy_in_another_python_is_named():
    check = doctor._bpy_check({"version": "5.2.3 LTS", "python": "3.13.1", "elsewhere": "/usr/bin/python3.13"})
    assert check.state == "warn"
    assert check.found == "5.2.3 LTS, not here but in /usr/bin/python3.13: run turntable-farm from that Python"


@pytest.mark.slow
def test_a_bpy_elsewhere_imports_into_a_scene_but_does_not_render(monkeypatch):
    monkeypatch.setattr(doctor, "_ask_bpy", lambda: {"version": "5.2.3", "elsewhere": "/usr/bin/python3.13"})
    can = {ability.name: ability.can for ability in diagnose().abilities}
    assert (can["render"], can["import"]) == (False, True)


def test_report_text_is_exact():
    diagnosis = Diagnosis(
        (Check("torch", "ok", "2.13.0"), Check("bpy", "missing", "not here", "pip install bpy")),
        (Ability("render", False, "lacks bpy"), Ability("reconstruct", True, "with numba on the processor")),
    )
    assert format_report(diagnosis).split("\n") == [
        "  ok       torch        2.13.0",
        "  missing  bpy          not here",
        "                        fix: pip install bpy",
        "",
        "This machine can",
        "  no       render       lacks bpy",
        "  yes      reconstruct  with numba on the processor",
        "",
        "Not everything works here: see the fixes above.",
    ]


# ---------------------------------------------------------------- the list that `make setup` checks first
def test_missing_libraries_become_one_apt_line(monkeypatch, capsys):
    monkeypatch.setattr(
        system_libraries,
        "LIBRARIES",
        (
            system_libraries.SystemLibrary("libc.so.6", "libc6", ("everything",)),
            system_libraries.SystemLibrary("libnowhere.so.9", "libnowhere9", ("bpy",)),
            system_libraries.SystemLibrary("libabsent.so.1", "libabsent1", ("pymeshlab",)),
        ),
    )
    assert system_libraries.main([]) == 1
    line = "sudo apt-get update && sudo apt-get install -y --no-install-recommends libabsent1 libnowhere9"
    assert line in capsys.readouterr().err
    check = doctor._system_libraries_check(doctor._ask_system_libraries())
    assert check == Check("system libraries", "missing", "without libabsent1, libnowhere9", line)


def test_without_root_nothing_is_installed(monkeypatch, capsys):
    monkeypatch.setattr(system_libraries, "missing_packages", lambda: ["libgl1"])
    monkeypatch.setattr(system_libraries, "_may_install", lambda: False)
    monkeypatch.setattr(system_libraries.subprocess, "run", lambda *_, **__: pytest.fail("must not install"))
    assert system_libraries.main(["--install"]) == 1
    assert "    sudo apt-get update && sudo apt-get install" in capsys.readouterr().err


def test_as_root_the_missing_are_installed_and_looked_at_again(monkeypatch):
    answers = [["libgl1"], []]
    commands = []
    monkeypatch.setattr(system_libraries, "missing_packages", lambda: answers.pop(0))
    monkeypatch.setattr(system_libraries, "_may_install", lambda: True)
    monkeypatch.setattr(system_libraries.subprocess, "run", lambda command, **_: commands.append(command))
    assert system_libraries.main(["--install"]) == 0
    assert commands == [
        ["sh", "-c", "apt-get update && apt-get install -y --no-install-recommends libgl1"],
    ]


def test_it_runs_by_path_without_any_installed_package(repository):
    """-I -S: no site-packages, no working directory on the path, as on a machine where nothing is installed yet."""
    command = [sys.executable, "-I", "-S", "engine/system_libraries.py", "--json"]
    child = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True)
    known = {library.package: library.soname for library in system_libraries.LIBRARIES}
    missing = json.loads(child.stdout)
    assert missing.items() <= known.items()
