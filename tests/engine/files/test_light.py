"""engine.files is what the render farm and the service import: no torch, no Blender."""

import subprocess
import sys
from pathlib import Path


def test_importing_the_files_room_brings_no_torch(repository: Path) -> None:
    code = "import sys, engine.files; print([m for m in ('torch', 'bpy', 'webdataset', 'pymeshlab', 'trimesh') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
