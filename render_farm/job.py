"""What the parent tells the Blender child, as one JSON file an object. Standard library only: both sides import it.

The child (``python -m render_farm.worker``) lives longer than one job. It reads the path of a job file from each line
of its stdin, and ends when stdin closes. Environment:

    BLENDER_USER_RESOURCES, TMPDIR  its scratch
    OMP_NUM_THREADS                 threads that Blender comes up with; no job may have more
    TURNTABLE_DEVICE                cpu (default) or gpu: for the device in `hello`

On its stdout it writes one JSON object a line::

    {"event": "hello", "blender": "4.5.15 LTS", "device": "CPU", "pid": 123}          once, before any job
    {"event": "heartbeat", "stage": "rendering ring24 view 3", "rss_bytes": 1}        every two seconds
    {"event": "begin", "key": K}                                                      each job
    {"event": "imported", "key": K, ...facts}                                         read, posed, normalised
    {"event": "view", "key": K, "orbit": "ring24", "index": 0, "path": P, "render_s": 0.2, "write_s": 0.01}
    {"event": "done", "key": K, "stages": {"import_s": 0.1, ...}, "cpu_s": 1.0, "peak_bytes": 1, "rss_bytes": 1}
    {"event": "error", "key": K, "reason": R, "message": M, "stage": S, "stages": {...}}   instead of done; it goes on

An error of key "" with reason no-blender is the last event: the child ends with status 1. Heartbeats pause while an
importer written in C reads (OBJ, PLY, STL, USD, Collada); during `import` only the import's own deadline holds.

Stages, in seconds: reset_s, import_s, measure_s, materials_s, setup_s, render_s (Cycles with its sync), write_s.

Facts of `imported`::

    scale, centre          p_normalised = scale * (p_asset - centre)
    triangles, objects, instances (bool), mesh_hash (of the shape: whatever its place, size, order, names, materials)
    animated, skinned (bool), frame (number that is shown), frames [start, end], pose ("frame" or "rest")
    lights_dropped, cameras_dropped
    materials, images, largest_image_px, textures_resized (numbers), transparent (bool: the asset has such materials)
    textured               "image" (or a procedural pattern), "vertex", "colours" (several plain base colours), "plain"
    base_colours           number of different plain base colours
    device                 "CPU", or the GPU's name: what this job is rendered on
    warnings               sentences

Channels of an EXR: Combined.RGBA, Depth.Z, Normal.XYZ (world; also for camera_normal), DiffCol.RGB, GlossCol.RGB, and
the AOVs of render_farm/worker/materials.py, to be divided by BaseWeight: BaseColour.RGB (albedo), Roughness, Metallic.
Where the weight is 0 a shader could not be read: albedo is DiffCol + GlossCol, roughness 0.5, metallic 0.
"""

import json
from collections.abc import Mapping
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
class OrbitJob:
    """Pictures that share intrinsics and light."""

    name: str
    """Of the orbit."""
    focal_px: float
    """Focal length in pixels, both axes."""
    principal_px: tuple[float, float]
    """Principal point (u, v) in pixels."""
    light: Mapping[str, Any]
    """As render_farm/lights.py draws it."""
    views: tuple[ViewJob, ...]
    """The pictures, in order."""


@dataclass(frozen=True)
class Job:
    """Everything the child needs for one object."""

    key: str
    """The task's name; comes back with every event."""
    asset: str
    """Absolute path of the model."""
    suffix: str
    """Its format: lower-case, with the dot."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    orbits: tuple[OrbitJob, ...]
    """What to render."""
    policy: Mapping[str, Any]
    """The fields of render_farm.spec.AssetPolicy."""
    samples: int
    """Paths for each pixel."""
    seed: int
    """Cycles' noise seed, 0 to 2^31 - 1."""
    denoise: str
    """none or fast."""
    passes: tuple[str, ...]
    """Of depth, normal, camera_normal, albedo, material."""
    device: str
    """cpu or gpu."""
    threads: int
    """Render threads."""
    hdri_folder: str
    """Where HDR files lie that are not Blender's own."""

    def save(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @staticmethod
    def load(path: Path) -> "Job":
        """Read a job back."""
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        orbits = tuple(_orbit(orbit) for orbit in document.pop("orbits"))
        return Job(**document | {"passes": tuple(document["passes"])}, orbits=orbits)


def _orbit(fields: dict[str, Any]) -> OrbitJob:
    """JSON knows no tuples."""
    views = tuple(
        ViewJob(**view | {"matrix_world": tuple(map(tuple, view["matrix_world"]))}) for view in fields["views"]
    )
    return OrbitJob(**fields | {"views": views, "principal_px": tuple(fields["principal_px"])})
