"""What the parent tells the Blender child, as one JSON file. Standard library only: both sides import it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ViewJob:
    """One picture to render."""

    index: int
    """Position in the orbit."""
    matrix_world: Matrix
    """4x4 of Blender's camera object (OpenGL camera axes, +Z-up world), metres in the normalised frame."""
    path: str
    """The EXR to write."""


@dataclass(frozen=True)
class Job:
    """Everything the child needs for one object."""

    asset: str
    """Absolute path of the model."""
    suffix: str
    """Its format: lower-case, with the dot."""
    scratch: str
    """A folder of the child's own, for Blender's settings and temporary files; the parent removes it."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """Principal point (u, v) in pixels."""
    views: tuple[ViewJob, ...]
    """The pictures, in order."""
    samples: int
    """Paths for each pixel."""
    seed: int
    """Cycles' noise seed, 0 to 2^31 - 1."""
    denoise: str
    """none or fast."""
    light: str
    """Lighting policy."""
    passes: tuple[str, ...]
    """Of depth, normal, albedo."""
    device: str
    """cpu or gpu."""
    threads: int
    """Render threads."""

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Job":
        """Read a job back."""
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        views = tuple(ViewJob(**view) for view in document.pop("views"))
        return Job(**document, views=views)
