"""From an orbit to splats and a textured mesh: the second walk of the design, without the generators.

    orbit --> views --> splats (fit) --> mesh (depth, carve, clean, unwrap, bake) --> turntable --> quality
                            |_____________depth, where the orbit has none______^

Every stage leaves files in the result folder and is not run again if they are whole (see results.py).
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray

from engine.errors import TurntableError
from engine.evaluation.images import over_white, psnr_db, ssim
from engine.evaluation.mesh import measure_mesh
from engine.files import (
    MeshArrays,
    OrbitImages,
    contact_sheet,
    read_mesh,
    read_orbit,
    read_splats,
    to_bytes,
    write_mesh,
    write_orbit,
    write_png,
    write_splats,
    write_turntable,
)
from engine.geometry import Ring
from engine.meshing import (
    FROM_SPLATS,
    MeshSettings,
    Surface,
    draw_mesh,
    mesh_from_depth,
    mesh_from_outlines,
    texture_from_views,
    view_agreement,
)
from engine.results import ResultFolder, fingerprint, open_result, sha256_of
from engine.splats import Gaussians, render
from engine.splats.fitting import FitProgress, FitSettings, fit
from engine.versions import versions

STAGES = ("views", "splats", "mesh", "turntable", "quality")
Stage = Literal["views", "splats", "mesh", "turntable", "quality"]
TURNTABLE_FPS = 24
PREVIEW_COLUMNS = 4

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReconstructSettings:
    """What `turntable reconstruct` does between the orbit and the files."""

    holdout_every: int = 0
    """Keep every so-many-th view (3: views 2, 5, 8, ...) out of the reconstruction and measure on them; 0 keeps none."""
    device: str = "auto"
    """Where splats are fitted: cpu, cuda, or auto (cuda where there is one)."""
    fit: FitSettings = field(default_factory=FitSettings)
    """The splats."""
    mesh: MeshSettings = field(default_factory=MeshSettings)
    """The mesh and its texture."""
    turntable_frames: int = 96
    """Frames of turntable.mp4, one full circle."""


Progress = Callable[[str, int, int, str], None]
"""Called with stage, steps done, steps in all, and a few words."""


def held_out_views(count: int, every: int) -> list[int]:
    """Return the indices of the held-out views: the last of every `every` (3 of 24: 2, 5, ..., 23)."""
    if every == 0:
        return []
    if every < 2 or every > count:
        raise TurntableError(f"--holdout-every must be 0 or from 2 to {count} (the views), got {every}")
    return list(range(every - 1, count, every))


def reconstruct(
    orbit_path: Path,
    out: Path,
    settings: ReconstructSettings,
    *,
    truth: Path | None = None,
    redo_from: Stage | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Reconstruct an orbit into a result folder and return its report; a rerun does only what is missing.

    Args:
        orbit_path: an orbit/1 folder or json.
        out: the result folder, made if it is not there.
        settings: see ReconstructSettings.
        truth: the true mesh, to measure the made one against.
        redo_from: redo this stage and those after it.
        progress: called often.

    Raises TurntableError (bad orbit, folder of something else, disk full, ...); nothing half-written is left as whole.
    """
    images = read_orbit(orbit_path)
    if truth is not None and not truth.is_file():
        raise TurntableError(f"{truth}: --truth must name the true mesh's file, and there is none")
    held_out_views(len(images.orbit), settings.holdout_every)  # complain before anything is written
    with open_result(out) as result:
        return Reconstruction(images, result, settings, truth, redo_from, progress or silent).run()


def silent(stage: str, done: int, total: int, words: str) -> None:
    """Report no progress."""


def resolved_device(device: str) -> str:
    """Return the device that `auto` stands for; raises TurntableError for a CUDA device where torch sees none."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TurntableError(f"--device {device}: torch sees no CUDA device here; take --device cpu")
    return device


def shown_by(views: OrbitImages, asked: Surface) -> Surface:
    """Return what shows the surface of a mesh of some views, auto resolved; raises TurntableError for maps that lack."""
    has_depth = views.depth_m is not None
    if asked == "orbit" and not has_depth:
        raise TurntableError(f"{views.uid}: --surface orbit, but the orbit has no depth maps; take --surface splats")
    return asked if asked != "auto" else "orbit" if has_depth else "splats"


def surface_of(
    views: OrbitImages, splats: Gaussians, settings: MeshSettings, progress: Callable[[str, float], None] | None = None
) -> MeshArrays:
    """Return the surface of what views show, without texture, from what settings.surface says.

    Args:
        views: with their outlines, and depth maps where these are asked for.
        splats: of the same object, for their depth.
        settings: see MeshSettings; the splats' depth is forgiven more.
        progress: called with a stage and the share done.

    Raises TurntableError, MeshingError among them: what is asked for is not there, or makes no mesh.
    """
    alpha, given_view = views.rgba[..., 3].astype(np.float32) / 255, views.given_view
    source = shown_by(views, settings.surface)
    if source == "outlines":
        return mesh_from_outlines(views.orbit, alpha, given_view=given_view, settings=settings, progress=progress)
    depth_m = views.depth_m if source == "orbit" else None
    if depth_m is None:
        with torch.no_grad():
            depth_m = render(splats, views.orbit.cameras).depth_m.numpy()
        depth_m = np.where(views.rgba[..., 3] > 0, depth_m, 0)
        settings = replace(
            settings,
            agreement_voxels=max(settings.agreement_voxels, FROM_SPLATS.agreement_voxels),
            free_views=max(settings.free_views, FROM_SPLATS.free_views),
        )
    return mesh_from_depth(views.orbit, depth_m, alpha, given_view=given_view, settings=settings, progress=progress)


@dataclass(frozen=True)
class Reconstruction:
    """One run: what the stages share."""

    images: OrbitImages
    """The views."""
    result: ResultFolder
    """Where the files go."""
    settings: ReconstructSettings
    """How."""
    truth: Path | None
    """The true mesh's file."""
    redo_from: Stage | None
    """Redo this stage and those after it."""
    progress: Progress
    """Called often."""
    given_splats: str | None = None
    """File of the result folder that holds splats; they are taken as they are and none are fitted."""

    def run(self) -> dict[str, Any]:
        """Store the views and walk the stages after them; return the report."""
        self.result.report |= self._header()
        return self.after(self._stage("views", {"orbit": _content_hash(self.images)}, self._write_views))

    def after(self, views: str) -> dict[str, Any]:
        """Walk the stages after the views, whose fingerprint is given; each one's holds the one before."""
        device = resolved_device(self.settings.device)
        how = {"given": self.given_splats} if self.given_splats else {"fit": asdict(self.settings.fit)}
        splats = self._stage("splats", {"input": views, "holdout": self.settings.holdout_every, "device": device, **how},
                             self._make_splats)  # fmt: skip
        surface = shown_by(self.images, self.settings.mesh.surface)
        mesh = self._stage("mesh", {"input": views, "holdout": self.settings.holdout_every,
                                    "depth": splats if surface == "splats" else surface,
                                    "mesh": asdict(self.settings.mesh)}, self._make_mesh)  # fmt: skip
        shown = self._stage("turntable", {"splats": splats, "mesh": mesh, "frames": self.settings.turntable_frames},
                            self._show)  # fmt: skip
        truth = sha256_of(self.truth) if self.truth else None
        self._stage("quality", {"input": shown, "truth": truth}, self._measure)
        return self.result.report

    def _stage(self, name: Stage, settings: dict[str, Any], action: Callable[[], list[str]]) -> str:
        again = self.redo_from is not None and STAGES.index(name) >= STAGES.index(self.redo_from)
        return self.result.stage(name, settings, action, again=again)

    def _header(self) -> dict[str, Any]:
        images = self.images
        return {
            "preset": "reconstruct",
            "uid": images.uid,
            "seed": self.settings.fit.seed,
            "settings": asdict(self.settings),
            "held_out_views": self._held_out,
            "weights": [],
            "versions": versions(),
            "licences": [{"of": images.uid, "license": images.license, "attribution": images.attribution,
                          "source": images.source}],
            "normalisation": {"scale": images.normalisation.scale, "centre": list(images.normalisation.centre)},
        }  # fmt: skip

    @property
    def _held_out(self) -> list[int]:
        return held_out_views(len(self.images.orbit), self.settings.holdout_every)

    @property
    def _given(self) -> OrbitImages:
        """The views that may be used: all but the held-out ones."""
        held_out = set(self._held_out)
        return self.images.subset([i for i in range(len(self.images.orbit)) if i not in held_out])

    # ------------------------------------------------------------------------------------------------ stages
    def _write_views(self) -> list[str]:
        self.progress("views", 0, 1, "")
        path = write_orbit(self.result.folder, self.images, json_name="orbit.json")
        self.progress("views", 1, 1, "")
        prefix = f"{self.images.uid}.{self.images.orbit.name}."
        names = [other.name for other in self.result.folder.iterdir() if other.name.startswith(prefix)]
        return [path.name, *sorted(names)]

    def _make_splats(self) -> list[str]:
        if self.given_splats:
            write_splats(self.result.folder / "splats.ply", read_splats(self.result.folder / self.given_splats))
            return ["splats.ply"]

        def report(at: FitProgress) -> None:
            self.progress("splats", at.step, at.steps, f"{at.gaussians} splats, loss {at.loss:.4f}")

        gaussians = fit(self._given, self.settings.fit, device=resolved_device(self.settings.device), progress=report)
        write_splats(self.result.folder / "splats.ply", gaussians.to_arrays())
        return ["splats.ply"]

    def _make_mesh(self) -> list[str]:
        given, settings = self._given, self.settings.mesh

        def report(words: str, done: float) -> None:
            self.progress("mesh", round(100 * done), 100, words)

        mesh = surface_of(given, self._splats(), settings, report)
        mesh = texture_from_views(
            mesh, given.orbit, given.rgba, given_view=given.given_view, settings=settings, progress=report
        )
        write_mesh(self.result.folder / "mesh.glb", mesh)
        return ["mesh.glb"]

    def _show(self) -> list[str]:
        splats, orbit = self._splats(), self.images.orbit
        elevation_deg, distance_m = float(np.median(orbit.elevation_deg)), float(np.median(orbit.distance_m))
        ring = Ring(
            orbit.name, self.settings.turntable_frames, orbit.fov_deg, distance_m, (elevation_deg, elevation_deg)
        )
        around = ring.orbit(elevation_deg, orbit.width, orbit.height)
        frames = []
        with torch.no_grad():
            for index, camera in enumerate(around.cameras):
                frames.append(to_bytes(render(splats, [camera]).colour[0].numpy().astype(np.float64)))
                self.progress("turntable", index + 1, self.settings.turntable_frames, "")
        write_turntable(self.result.folder / "turntable.mp4", np.stack(frames), fps=TURNTABLE_FPS)
        write_png(self.result.folder / "preview.png", self._preview(splats, self._mesh()))
        return ["turntable.mp4", "preview.png"]

    def _preview(self, splats: Gaussians, mesh: MeshArrays) -> UInt8[np.ndarray, "h w 3"]:
        """Views, splats and mesh from the same places: held-out ones if there are any."""
        among = self._held_out or list(range(len(self.images.orbit)))
        chosen = [among[round(k * len(among) / PREVIEW_COLUMNS) % len(among)] for k in range(PREVIEW_COLUMNS)]
        orbit = self.images.orbit.subset(chosen)
        with torch.no_grad():
            seen = render(splats, orbit.cameras, torch.full((3,), 1.0)).colour.numpy().astype(np.float64)
        rows = [
            list(self.images.rgba[chosen]),
            [to_bytes(picture) for picture in seen],
            list(draw_mesh(mesh, orbit, supersampling=2)),
        ]
        titles = ["views" + (" (held out)" if self._held_out else ""), "splats", "mesh"]
        return contact_sheet(rows, titles=titles, background="white")

    def _measure(self) -> list[str]:
        self.progress("quality", 0, 2, "views")
        names = ("held_out", "given") if self._held_out else ("given",)
        quality: dict[str, Any] = {name: self._picture_quality(name) for name in names}
        self.progress("quality", 1, 2, "mesh")
        mesh = self._mesh()
        quality["mesh"] = {"faces": len(mesh.faces), "vertices": len(mesh.vertices)}
        if self.truth:
            quality["mesh"] |= asdict(measure_mesh(self.truth, mesh))
        quality["splats"] = {"count": len(self._splats())}
        self.result.report["quality"] = quality
        self.progress("quality", 2, 2, "")
        return []

    def _picture_quality(self, which: str) -> dict[str, Any]:
        """Splats and mesh against views over white; what is measured is what lies in the files."""
        held_out = set(self._held_out)
        views = [i for i in range(len(self.images.orbit)) if (i in held_out) == (which == "held_out")]
        orbit, truth = self.images.orbit.subset(views), over_white(self.images.rgba[views])
        with torch.no_grad():
            splats = render(self._splats(), orbit.cameras).colour.numpy()
        mesh = self._mesh()
        textured = over_white(draw_mesh(mesh, orbit, supersampling=2))
        psnr = [psnr_db(made, true) for made, true in zip(splats, truth, strict=True)]
        return {
            "views": views,
            "splats_psnr_db": round(float(np.mean(psnr)), 3),
            "splats_psnr_db_worst": round(float(np.min(psnr)), 3),
            "splats_ssim": round(float(np.mean([ssim(a, b) for a, b in zip(splats, truth, strict=True)])), 4),
            "mesh_silhouette_iou": round(view_agreement(mesh, orbit, self.images.rgba[views]).silhouette_iou, 4),
            "mesh_psnr_db": round(float(np.mean([psnr_db(a, b) for a, b in zip(textured, truth, strict=True)])), 3),
        }

    def _splats(self) -> Gaussians:
        return Gaussians.from_arrays(read_splats(self.result.folder / "splats.ply"))

    def _mesh(self) -> MeshArrays:
        return read_mesh(self.result.folder / "mesh.glb")


def _content_hash(images: OrbitImages) -> str:
    """Hash what an orbit shows and from where, not how it is stored."""
    arrays = [images.rgba, images.depth_m, images.normal, images.albedo, images.orbit.T_world_camera]
    parts = [sha256_bytes(array) for array in arrays if array is not None]
    return fingerprint({
        "uid": images.uid, "name": images.orbit.name, "focal": images.orbit.focal_px, "arrays": parts,
        **({} if images.given_view is None else {"given_view": images.given_view}),
    })  # fmt: skip


def sha256_bytes(array: NDArray[Any]) -> str:
    """Return the SHA-256 of an array's bytes in hex."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
