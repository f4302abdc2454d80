"""The raw surface becomes a smooth, light mesh that is still closed; pymeshlab does it in a child process."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

import engine
from engine.errors import MissingDependencyError
from engine.meshing.settings import MeshSettings
from engine.meshing.surface import is_closed
from engine.meshing.views import MeshingError

TIMEOUT_S = 600  # a hang, not a slow machine: the work takes seconds


def clean_surface(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], settings: MeshSettings
) -> tuple[Float[np.ndarray, "v2 3"], Int[np.ndarray, "f2 3"]]:
    """Smooth and decimate a closed mesh; raises MeshingError if the result is not closed."""
    if importlib.util.find_spec("pymeshlab") is None:
        raise MissingDependencyError("pymeshlab is not installed, meshes cannot be cleaned: pip install pymeshlab")
    with tempfile.TemporaryDirectory(prefix="turntable-clean-") as folder:
        source, result = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(
            source, vertices=vertices, faces=faces, target_faces=settings.target_faces,
            smoothing_steps=settings.smoothing_steps,
        )  # fmt: skip
        _run_child(source, result, settings.threads)
        with np.load(result) as data:
            vertices, faces = data["vertices"], data["faces"]
    if not is_closed(vertices, faces):
        raise MeshingError("the cleaned mesh is not watertight: lower smoothing_steps or raise resolution")
    return vertices, faces


def _run_child(source: Path, result: Path, threads: int) -> None:
    paths = [str(Path(engine.__path__[0]).parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "OMP_NUM_THREADS": str(threads),
        "QT_QPA_PLATFORM": "offscreen",
    }
    command = [sys.executable, "-m", "engine.meshing.clean_child", str(source), str(result)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeshingError(f"pymeshlab did not finish in {TIMEOUT_S} s: lower resolution or target_faces") from error
    if done.returncode != 0 or not result.exists():
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        last = lines[-1] if lines else "no message"
        raise MeshingError(f"cleaning the mesh failed in pymeshlab (exit code {done.returncode}): {last}")
