"""What this machine has and what it can do: `turntable doctor`.

Nothing comes in; a frozen `Diagnosis` goes out, and `format_report` makes it text. The standard library alone is
imported here: each heavy library is asked in a child process of its own (bpy, torch and pymeshlab must not share
one), all at once, so that a missing, broken or crashing one becomes a line of the report and never an error.

    this process  ->  child: torch, gsplat   child: bpy   child: pymeshlab   child: numba, xatlas, ...  ->  Diagnosis
"""

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine import system_libraries

PROBE_SECONDS = 60.0
"""A library that has not answered by then counts as missing. Cold imports of torch take up to 20 s on slow disks."""
INSTALL = "pip install -c constraints.txt -e '.[{extra}]'"

State = Literal["ok", "warn", "missing"]


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    """What was looked for."""
    state: State
    """ok; warn: works, but slower or with less; missing: something needs it."""
    found: str
    """What is here, in a few words."""
    fix: str = ""
    """The command that mends it; empty when nothing needs mending."""


@dataclass(frozen=True)
class Ability:
    """One thing that the product does, and whether this machine can do it."""

    name: Literal["render", "generate", "reconstruct", "mesh", "import"]
    """render an asset's orbit; reconstruct splats; make a mesh; bring a result into a Blender scene."""
    can: bool
    """Whether it works here."""
    why: str
    """With what, or what it lacks."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `turntable doctor` reports."""

    checks: tuple[Check, ...]
    """In reading order."""
    abilities: tuple[Ability, ...]
    """In the order of the pipeline."""

    @property
    def ok(self) -> bool:
        """Whether this machine can do all that the product does."""
        return all(ability.can for ability in self.abilities)

    def check(self, name: str) -> Check:
        """Return the check of that name. Raises KeyError if there is none."""
        return {check.name: check for check in self.checks}[name]


# ---------------------------------------------------------------- children: one library each, JSON out
_PRELUDE = """
import json, os, sys
def answer(**found):
    sys.stdout.write("\\nANSWER " + json.dumps(found) + "\\n")
    sys.stdout.flush()
    os._exit(0)  # bpy hangs at an ordinary exit
"""
_TORCH = """
import importlib.util, pathlib, torch
device = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
spec = importlib.util.find_spec("gsplat")
answer(
    version=torch.__version__, threads=torch.get_num_threads(), cuda=torch.version.cuda,
    device=device and device.name, memory_gb=device and device.total_memory / 1e9, gsplat=spec is not None,
    compiled=bool(spec and list(pathlib.Path(spec.submodule_search_locations[0]).glob("csrc*.so"))),
)
"""
_BPY = "import bpy\nanswer(version=bpy.app.version_string, python=sys.version.split()[0])"
_PYMESHLAB = """
import importlib.metadata, pymeshlab
pymeshlab.MeshSet().create_cube()
answer(version=importlib.metadata.version("pymeshlab"))
"""
_DIFFUSERS = """
import diffusers, transformers
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from transformers.models.clip.modeling_clip import CLIPTextModel
answer(version=f"{diffusers.__version__}, transformers {transformers.__version__}")
"""
_SMALL = """
import importlib, importlib.metadata
found = {}
for module, distribution in MODULES.items():
    try:
        importlib.import_module(module)
        found[distribution] = {"version": importlib.metadata.version(distribution)}
    except Exception as error:
        found[distribution] = {"error": f"{type(error).__name__}: {error}"}
try:
    import imageio_ffmpeg
    found["ffmpeg"] = {"version": imageio_ffmpeg.get_ffmpeg_version()}
except Exception as error:
    found["ffmpeg"] = {"error": f"{type(error).__name__}: {error}"}
answer(**found)
"""
_MESH_MODULES = {"skimage": "scikit-image", "xatlas": "xatlas", "embreex": "embreex", "rtree": "rtree"}
_SMALL_MODULES = {"numba": "numba", "pillow_heif": "pillow-heif", **_MESH_MODULES}

Answer = Mapping[str, Any]
"""What a child found; `{"error": text}` if it could not."""


def _ask(code: str, python: str = sys.executable) -> Answer:
    """Run one probe in a child process and return its answer, or {"error": why there is none}."""
    with tempfile.TemporaryDirectory(prefix="turntable-doctor-") as folder:
        # bpy writes to the user's Blender settings on import unless told where else to.
        environment = os.environ | {"BLENDER_USER_RESOURCES": folder, "OMP_NUM_THREADS": _threads()}
        command = [python, "-c", _PRELUDE + code]
        try:
            child = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return {"error": f"did not answer in {PROBE_SECONDS:.0f} s"}
        except OSError as error:
            return {"error": str(error)}
    for line in child.stdout.splitlines():
        if line.startswith("ANSWER "):
            found: Answer = json.loads(line.removeprefix("ANSWER "))
            return found
    if child.returncode < 0:
        return {"error": f"crashed on import (signal {-child.returncode})"}
    return {"error": (child.stderr.strip().splitlines() or [f"ended with status {child.returncode}"])[-1]}


def _threads() -> str:
    return os.environ.get("OMP_NUM_THREADS") or str(_cores())


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _ask_bpy() -> Answer:
    """Look for bpy here first, then in the other Pythons on the path that Blender has wheels for."""
    here = _ask(_BPY)
    if "error" not in here:
        return here
    for name in ("python3.11", "python3.13"):
        python = shutil.which(name)
        if python and Path(python).resolve() != Path(sys.executable).resolve():
            there = _ask(_BPY, python)
            if "error" not in there:
                return {**there, "elsewhere": python}
    return here


def _ask_blender() -> Answer:
    executable = shutil.which("blender")
    if executable is None:
        return {"error": "no Blender on the path"}
    try:
        child = subprocess.run([executable, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"error": f"{executable}: {error}"}
    first = (child.stdout.strip().splitlines() or [""])[0]
    return {"version": f"{first} ({executable})"} if first.startswith("Blender") else {"error": f"{executable} fails"}


def _ask_system_libraries() -> Answer:
    try:
        missing = system_libraries.missing_packages()
    except OSError as error:
        return {"error": str(error)}
    return {"missing": missing}


# ---------------------------------------------------------------- checks: an answer becomes a line
def _machine_checks() -> list[Check]:
    version, gigabytes = platform.python_version(), _memory_gb()
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    return [
        Check(
            "Python",
            "ok" if supported else "missing",
            f"{version} ({sys.executable})" + ("" if supported else "; 3.11 to 3.13 work"),
            "" if supported else "sudo apt-get install -y python3.11 python3.11-venv && make setup",
        ),
        Check("system", "ok" if sys.platform.startswith("linux") else "warn", f"{platform.platform()}"),
        Check("processor", "ok" if _cores() > 1 else "warn", f"{_cores()} cores ({platform.machine()})"),
        Check(
            "memory",
            "ok" if gigabytes is not None and gigabytes >= 8 else "warn",
            "unknown" if gigabytes is None else f"{gigabytes:.0f} GB" + ("" if gigabytes >= 8 else "; 8 GB is better"),
        ),
        Check(
            "free disk",
            "ok" if free_gb >= 5 else "warn",
            f"{free_gb:.0f} GB in {Path.cwd()}" + ("" if free_gb >= 5 else "; an object takes up to 0.5 GB"),
        ),
    ]


def _memory_gb() -> float | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    except (AttributeError, OSError, ValueError):
        return None


def _system_libraries_check(answer: Answer) -> Check:
    missing = answer.get("missing", [])
    if "error" in answer:
        return Check("system libraries", "warn", answer["error"])
    if missing:
        fix = system_libraries.install_command(missing)
        return Check("system libraries", "missing", f"without {', '.join(missing)}", fix)
    return Check("system libraries", "ok", f"all {len(system_libraries.LIBRARIES)} that the wheels expect")


def _library_check(name: str, answer: Answer, extra: str, *, without: State = "missing") -> Check:
    if "error" in answer:
        return Check(name, without, _short(answer["error"]), INSTALL.format(extra=extra))
    return Check(name, "ok", str(answer["version"]))


def _torch_checks(answer: Answer) -> list[Check]:
    if "error" in answer:
        fix = "pip install -c constraints.txt torch"
        return [
            Check("torch", "missing", _short(answer["error"]), fix),
            Check("CUDA", "warn", "not asked: torch is missing"),
            Check("gsplat", "warn", "not asked: torch is missing"),
        ]
    torch = Check("torch", "ok", f"{answer['version']}, {answer['threads']} threads")
    if not answer["device"]:
        why = "no CUDA device" if answer["cuda"] else "this torch is a CPU build"
        return [
            torch,
            Check("CUDA", "warn", f"{why}: everything runs on the processor, more slowly"),
            Check("gsplat", "warn", "not used without CUDA; numba renders instead"),
        ]
    cuda = Check("CUDA", "ok", f"{answer['device']}, {answer['memory_gb']:.0f} GB, CUDA {answer['cuda']}")
    return [torch, cuda, _gsplat_check(answer)]


def _gsplat_check(answer: Answer) -> Check:
    if not answer["gsplat"]:
        return Check("gsplat", "warn", "not installed; numba renders instead", INSTALL.format(extra="cuda"))
    if answer["compiled"]:
        return Check("gsplat", "ok", "compiled")
    if shutil.which("nvcc"):
        return Check("gsplat", "ok", "compiles itself on first use (minutes)")
    return Check("gsplat", "warn", "not compiled and no nvcc to compile it; numba renders instead")


def _bpy_check(answer: Answer) -> Check:
    if "error" in answer:
        return Check("bpy", "missing", _short(answer["error"]), INSTALL.format(extra="farm"))
    if "elsewhere" in answer:
        found = f"{answer['version']}, not here but in {answer['elsewhere']}: run turntable-farm from that Python"
        return Check("bpy", "warn", found, INSTALL.format(extra="farm"))
    return Check("bpy", "ok", f"Blender {answer['version']}, in its own process")


def _blender_check(answer: Answer) -> Check:
    return Check("Blender", "warn" if "error" in answer else "ok", answer.get("error") or answer["version"])


def _rembg_check() -> Check:
    if importlib.util.find_spec("rembg") is None:
        found = "not installed; pictures need a transparent or plain background then"
        return Check("rembg", "warn", found, INSTALL.format(extra="matting"))
    return Check("rembg", "ok", "takes any background away; fetches its weights (176 MB) when first used")


def _short(error: str) -> str:
    return error if len(error) <= 160 else error[:157] + "..."


# ---------------------------------------------------------------- what follows from the checks
def _abilities(checks: Mapping[str, Check]) -> tuple[Ability, ...]:
    def lacks(*names: str) -> str:
        return ", ".join(name for name in names if checks[name].state == "missing")

    in_blender = checks["bpy"].state != "missing" or checks["Blender"].state == "ok"
    on_cuda = checks["gsplat"].state == "ok"
    renderer = "gsplat on CUDA" if on_cuda else "numba on the processor"
    reconstruct = lacks("torch") or ("" if on_cuda else lacks("numba"))
    mesh = lacks("scikit-image", "xatlas", "embreex", "rtree", "pymeshlab")
    render = checks["bpy"].state == "ok"
    generate = lacks("torch", "diffusers") or reconstruct or mesh
    return (
        Ability("render", render, "lacks bpy" if checks["bpy"].state == "missing" else checks["bpy"].found),
        Ability(
            "generate",
            not generate,
            f"lacks {generate}" if generate else f"on {'CUDA' if on_cuda else 'the processor'}",
        ),
        Ability("reconstruct", not reconstruct, f"lacks {reconstruct}" if reconstruct else f"with {renderer}"),
        Ability("mesh", not mesh, f"lacks {mesh}" if mesh else "with scikit-image, pymeshlab, xatlas and embreex"),
        Ability("import", in_blender, "into a Blender scene" if in_blender else "lacks bpy, and no Blender is found"),
    )


def diagnose() -> Diagnosis:
    """Look at this machine. Never raises for a missing piece; takes as long as the slowest library's import."""
    small = f"MODULES = {_SMALL_MODULES!r}\n{_SMALL}"
    with ThreadPoolExecutor(max_workers=6) as pool:
        torch, bpy, blender = pool.submit(_ask, _TORCH), pool.submit(_ask_bpy), pool.submit(_ask_blender)
        diffusers = pool.submit(_ask, _DIFFUSERS)
        pymeshlab, libraries = pool.submit(_ask, _PYMESHLAB), pool.submit(_ask, small)
        system = _ask_system_libraries()
    answers = libraries.result()

    def part(name: str) -> Answer:
        found: Answer = answers if "error" in answers else answers[name]
        return found

    checks = [
        *_machine_checks(),
        _system_libraries_check(system),
        *_torch_checks(torch.result()),
        _library_check("numba", part("numba"), "models"),
        _library_check("diffusers", diffusers.result(), "models"),
        _library_check("pillow-heif", part("pillow-heif"), "models", without="warn"),
        _rembg_check(),
        _bpy_check(bpy.result()),
        _blender_check(blender.result()),
        _library_check("pymeshlab", pymeshlab.result(), "mesh"),
        *(_library_check(name, part(name), "mesh") for name in _MESH_MODULES.values()),
        _library_check("ffmpeg", part("ffmpeg"), "models", without="warn"),
        Check("weights", "ok", "given by --weights, made by `turntable convert`; reconstructing an orbit needs none"),
    ]
    return Diagnosis(tuple(checks), _abilities({check.name: check for check in checks}))


def format_report(diagnosis: Diagnosis) -> str:
    """Return the report as text: one line a check with its fix beneath, then what the machine can do."""
    names = [check.name for check in diagnosis.checks] + [ability.name for ability in diagnosis.abilities]
    width = max(len(name) for name in names)
    lines = []
    for check in diagnosis.checks:
        lines.append(f"  {check.state:<8} {check.name:<{width}}  {check.found}")
        if check.fix:
            lines.append(f"  {'':<8} {'':<{width}}  fix: {check.fix}")
    lines += ["", "This machine can"]
    lines += [f"  {'yes' if a.can else 'no':<8} {a.name:<{width}}  {a.why}" for a in diagnosis.abilities]
    lines += ["", "Ready." if diagnosis.ok else "Not everything works here: see the fixes above."]
    return "\n".join(lines)
