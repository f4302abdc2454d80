"""`turntable reconstruct`: an orbit becomes splats and a textured mesh."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.running import needing, progress_bars, set_threads
from engine.command_line import Answer, Talk, Unset


@dataclass(frozen=True)
class Reconstruct:
    """Turn an orbit into splats.ply, mesh.glb, turntable.mp4, preview.png and report.json.

    Prints the result folder. Stages whose files are whole are not run again, so a run that was stopped goes on.
    """

    orbit: Annotated[Path, tyro.conf.Positional]
    """An orbit/1 folder or its json, such as `turntable-farm render` leaves."""
    out: Path
    """The result folder."""
    holdout_every: int = 0
    """Keep every so-many-th view out and measure on it (3: views 2, 5, 8, ...); 0 uses all views."""
    truth: Unset[Path] = None
    """The true mesh (.glb), to measure the made one against."""
    redo_from: Annotated[
        Literal["views", "splats", "mesh", "turntable", "quality"] | None,
        tyro.conf.arg(name="from", help_behavior_hint=""),
    ] = None
    """Redo this stage and those after it, even if their files are whole."""
    surface: Literal["auto", "orbit", "splats", "outlines"] = "auto"
    """What shows the mesh's: the orbit's depth maps (auto: where it has them), the splats' depth, or the outlines alone."""
    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    seed: int = 0
    """Order of the views and colours of the backgrounds while fitting."""
    iterations: int = 800
    """Steps of the fit; 300 for a quick look, 3000 for the last half decibel."""
    sh_degree: int = 2
    """View-dependent colour of the splats: 0 (none) to 3."""
    max_gaussians: int = 60_000
    """Largest number of splats."""
    resolution: int = 224
    """Voxels along the mesh's longest side."""
    faces: int = 24_000
    """Triangles of the mesh, about."""
    texture_size: int = 1024
    """Side of the texture in pixels."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """CPU threads."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Reconstruct and print the result folder."""
        set_threads(self.threads)
        with needing("reconstruct", "models,mesh"):
            import torch

            from engine.meshing import MeshSettings
            from engine.reconstruct import ReconstructSettings, reconstruct
            from engine.splats.fitting import FitSettings
        torch.set_num_threads(self.threads)
        settings = ReconstructSettings(
            holdout_every=self.holdout_every,
            device=self.device,
            fit=FitSettings(
                iterations=self.iterations, sh_degree=self.sh_degree, max_gaussians=self.max_gaussians,
                seed=self.seed,
            ),
            mesh=MeshSettings(
                surface=self.surface, resolution=self.resolution, target_faces=self.faces,
                texture_size=self.texture_size, threads=self.threads,
            ),
        )  # fmt: skip
        with progress_bars(self.talk.quiet) as progress:
            reconstruct(self.orbit, self.out, settings, truth=self.truth, redo_from=self.redo_from, progress=progress)
        return Answer(str(self.out))
