"""How far a made mesh is from the true one. Only what can be seen from outside counts.

Many real assets hide inner faces that no mesh from pictures can have, so surface samples count only where at least one
of 48 fixed directions leaves them unobstructed. Both meshes must be in the same frame; `normalised` brings the truth
into ours (box centred, longest side 1).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from engine.errors import EvaluationError
from engine.files import read_mesh
from engine.files.types import MeshArrays

DIRECTIONS = 48
TARGET_SAMPLES = 1_000_000  # of the other surface: two equal meshes then measure about 0.0006, the sampling floor
TARGET_SEED = 7
LIFT_M = 1e-4  # rays start this far off the surface, so as not to hit the face that they start from
FSCORE_M = 0.01


@dataclass(frozen=True)
class MeshError:
    """A made mesh against the true one; lengths in the normalised frame, where the longest side is 1."""

    chamfer: float
    """Mean of the two distances below (L2)."""
    truth_to_made: float
    """Mean distance from seen samples of the truth to the made surface."""
    made_to_truth: float
    """Mean distance from seen samples of the made surface to the truth."""
    fscore: float
    """Harmonic mean of the shares of samples within 0.01 of the other surface, 0 to 1."""
    iou: float | None
    """Of the enclosed volumes on a grid, 0 to 1; None where either mesh is open."""
    truth_samples: int
    """How many samples of the truth were seen."""


def normalised(mesh: MeshArrays) -> MeshArrays:
    """Return the mesh with its bounding box centred on the origin and its longest side 1."""
    low, high = mesh.vertices.min(0), mesh.vertices.max(0)
    return replace(mesh, vertices=(mesh.vertices - (low + high) / 2) / (high - low).max())


def fibonacci_sphere(count: int) -> Float[np.ndarray, "n 3"]:
    """Return unit directions spread evenly over the sphere."""
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    return np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], 1)


def seen_samples(mesh: trimesh.Trimesh, count: int, seed: int) -> Float[np.ndarray, "m 3"]:
    """Return up to `count` surface points, drawn by area, from which one of the directions leads outside."""
    points, faces = trimesh.sample.sample_surface(mesh, 2 * count, seed=seed)
    points, normals = np.asarray(points), mesh.face_normals[faces]
    seen: Bool[np.ndarray, " n"] = np.zeros(len(points), bool)
    for direction in fibonacci_sphere(DIRECTIONS):
        side = np.sign(normals @ direction)
        left = np.flatnonzero(~seen & (side != 0))
        starts = points[left] + LIFT_M * side[left, None] * normals[left]
        blocked = mesh.ray.intersects_any(starts, np.broadcast_to(direction, starts.shape))  # type: ignore[no-untyped-call]
        seen[left] = ~blocked
    return points[seen][:count]


def volume_iou(truth: trimesh.Trimesh, made: trimesh.Trimesh, grid: int) -> float | None:
    """Return intersection over union of the enclosed volumes on grid^3 points; None where one is open."""
    if not (truth.is_watertight and made.is_watertight):
        return None
    low = np.minimum(truth.bounds[0], made.bounds[0])
    high = np.maximum(truth.bounds[1], made.bounds[1])
    axes = [np.linspace(low[k], high[k], grid) for k in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside_truth, inside_made = truth.contains(points), made.contains(points)
    union = int((inside_truth | inside_made).sum())
    return float((inside_truth & inside_made).sum() / max(union, 1))


def measure_mesh(
    truth: MeshArrays | Path, made: MeshArrays | Path, *, samples: int = 50_000, seed: int = 0, grid: int = 96
) -> MeshError:
    """Measure a made mesh (already in the normalised frame) against the truth, which is normalised here.

    Args:
        truth: arrays in our world, or a .glb.
        made: likewise.
        samples: seen samples of either surface, at most.
        seed: of the samples.
        grid: points along each axis for the IoU.

    Raises:
        EvaluationError: a mesh without faces or with vertices that are not finite.
    """
    true, ours = _prepared(truth, "truth", normalise=True), _prepared(made, "made mesh", normalise=False)
    p, q = seen_samples(true, samples, seed), seen_samples(ours, samples, seed + 1)
    to_made, to_truth = _distances(p, ours), _distances(q, true)
    recall, precision = float((to_made < FSCORE_M).mean()), float((to_truth < FSCORE_M).mean())
    return MeshError(
        chamfer=float(0.5 * (to_made.mean() + to_truth.mean())),
        truth_to_made=float(to_made.mean()),
        made_to_truth=float(to_truth.mean()),
        fscore=2 * recall * precision / max(recall + precision, 1e-9),
        iou=volume_iou(true, ours, grid),
        truth_samples=len(p),
    )


def _prepared(mesh: MeshArrays | Path, name: str, *, normalise: bool) -> trimesh.Trimesh:
    arrays = read_mesh(mesh) if isinstance(mesh, Path) else mesh
    if len(arrays.faces) == 0:
        raise EvaluationError(f"the {name} has no faces: nothing to measure")
    if not np.isfinite(arrays.vertices).all():
        raise EvaluationError(f"the {name} holds vertices that are not finite")
    if normalise:
        arrays = normalised(arrays)
    result = trimesh.Trimesh(arrays.vertices, arrays.faces, process=False)
    result.merge_vertices(merge_tex=True, merge_norm=True)
    return result


def _distances(points: Float[np.ndarray, "m 3"], mesh: trimesh.Trimesh) -> Float[np.ndarray, " m"]:
    targets, _ = trimesh.sample.sample_surface(mesh, TARGET_SAMPLES, seed=TARGET_SEED)
    return cKDTree(np.asarray(targets)).query(points, workers=-1)[0]
