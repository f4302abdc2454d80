"""Splats and meshes of generated views against the true object: what a user ends up with.

generated views --fit--> fitted splats ----------\\--render at the true cameras--> PSNR, SSIM against true views
(pipeline's reconstructor) feed-forward splats --/--depth (or outlines), carve, clean--> mesh --> Chamfer, F-score, IoU against .glb
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.errors import EvaluationError, named
from engine.evaluation.consistency import drawn
from engine.evaluation.images import over_white
from engine.evaluation.mesh import measure_mesh
from engine.evaluation.views import Perceptual, PictureFigures, picture_figures
from engine.files import OrbitImages
from engine.meshing import MeshSettings
from engine.reconstruct import surface_of
from engine.splats import Gaussians


def splats_error(splats: Gaussians, truth: OrbitImages, perceptual: Perceptual | None = None) -> PictureFigures:
    """Return how far splats, drawn over white, are from the true views but the first, which was given."""
    novel = truth.subset(range(1, len(truth.orbit)))
    return picture_figures(drawn(splats, novel.orbit.cameras), over_white(novel.rgba), perceptual)


def mesh_error(splats: Gaussians, views: OrbitImages, settings: MeshSettings, truth: Path) -> dict[str, Any]:
    """Return the figures of the mesh that splats and the outlines of the views that they are from become.

    Raises TurntableError if nothing is there to mesh.
    """
    return asdict(measure_mesh(truth, surface_of(views, splats, settings)))


def find_truth(folder: Path, uids: Sequence[str]) -> Mapping[str, Path]:
    """Return the true meshes, uid -> KEY.glb. Raises EvaluationError naming objects that have none."""
    if not folder.is_dir():
        raise EvaluationError(f"{folder}: --truth must name a folder of true meshes, KEY.glb each")
    paths = {uid: folder / f"{uid}.glb" for uid in uids}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise EvaluationError(
            f"{folder}: lacks the true mesh of {len(missing)} of {len(uids)} objects: {named(missing)}; "
            "put them there, or leave --truth"
        )
    return paths
