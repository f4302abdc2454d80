"""The system libraries that the wheels expect and no wheel carries: which are missing here, and how to get them.

The standard library alone, because it runs before anything is installed: `python3 engine/system_libraries.py --install`
is the first step of `make setup`. `turntable doctor` asks the same list.
"""

import argparse
import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class SystemLibrary:
    """One shared library that must be on the machine."""

    soname: str
    """What the loader asks for."""
    package: str
    """The Debian or Ubuntu package that brings it."""
    needed_by: tuple[str, ...]
    """The wheels that link it."""


LIBRARIES = (
    SystemLibrary("libX11.so.6", "libx11-6", ("bpy",)),
    SystemLibrary("libXrender.so.1", "libxrender1", ("bpy",)),
    SystemLibrary("libXfixes.so.3", "libxfixes3", ("bpy",)),
    SystemLibrary("libXi.so.6", "libxi6", ("bpy",)),
    SystemLibrary("libxkbcommon.so.0", "libxkbcommon0", ("bpy",)),
    SystemLibrary("libSM.so.6", "libsm6", ("bpy",)),
    SystemLibrary("libGL.so.1", "libgl1", ("bpy", "pymeshlab")),
    SystemLibrary("libEGL.so.1", "libegl1", ("bpy", "pymeshlab")),
    SystemLibrary("libOpenGL.so.0", "libopengl0", ("pymeshlab",)),
    SystemLibrary("libGLU.so.1", "libglu1-mesa", ("pymeshlab",)),
)
"""Measured on a bare Debian 12 (bpy 4.5.15, pymeshlab 2025.7)."""


def missing_libraries() -> list[SystemLibrary]:
    """Return what the loader cannot find. Off Linux the wheels carry everything: nothing is missing."""
    if not sys.platform.startswith("linux"):
        return []
    return [library for library in LIBRARIES if not _loads(library.soname)]


def _loads(soname: str) -> bool:
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True


def missing_packages() -> list[str]:
    """Return the Debian packages to install, sorted; among them python3.X-venv, which Debian splits off."""
    packages = {library.package for library in missing_libraries()}
    if importlib.util.find_spec("ensurepip") is None:
        packages.add(f"python{sys.version_info.major}.{sys.version_info.minor}-venv")
    return sorted(packages)


def install_command(packages: list[str], *, sudo: bool = True) -> str:
    """Return the line that installs packages on Debian and Ubuntu."""
    prefix = "sudo " if sudo else ""
    return f"{prefix}apt-get update && {prefix}apt-get install -y --no-install-recommends {' '.join(packages)}"


def main(arguments: list[str] | None = None) -> int:
    """Check, and with --install install where we may. Exits 0 when nothing is missing, else 1."""
    parser = argparse.ArgumentParser(description="Check the system libraries that Turntable's wheels need.")
    parser.add_argument("--install", action="store_true", help="as root with apt-get: install what is missing")
    parser.add_argument("--json", action="store_true", help="print the missing sonames by package, as JSON")
    options = parser.parse_args(arguments)
    if options.json:
        sys.stdout.write(json.dumps({library.package: library.soname for library in missing_libraries()}) + "\n")
        return 0
    packages = missing_packages()
    if packages and options.install and _may_install():
        _say(f"Installing system packages: {' '.join(packages)}")
        command = install_command(packages, sudo=False)
        subprocess.run(["sh", "-c", command], check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
        packages = missing_packages()
    if packages:
        _say(f"These system packages are missing: {' '.join(packages)}\nInstall them, then run this again:\n")
        _say(f"    {install_command(packages)}\n")
    return 1 if packages else 0


def _may_install() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
