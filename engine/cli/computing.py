"""What `generate` and `evaluate` have in common: what computes, and how much work goes into splats and meshes."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from engine.command_line import Unset

if TYPE_CHECKING:
    from engine.meshing import MeshSettings
    from engine.presets import Effort
    from engine.splats.fitting import FitSettings


@dataclass(frozen=True)
class Computing:
    """What computes."""

    device: str = "auto"
    """cpu, cuda, or auto: cuda where there is one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """What the networks compute in; auto: float32 on a CPU, bfloat16 on CUDA."""
    offload: bool = False
    """Keep networks in main memory and bring each to the GPU only while it runs."""
    compile: bool = False
    """Compile the denoising networks first: a minute or more, then faster steps; not with --offload."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """CPU threads."""


@dataclass(frozen=True)
class Work:
    """How much work goes into splats and meshes; what is not given is the preset's own."""

    iterations: Unset[int] = None
    """Steps of the splats' fit."""
    surface: Unset[Literal["splats", "outlines"]] = None
    """What shows the mesh's: the splats' depth, or the views' outlines alone, for views too blurred to agree about depth."""
    resolution: Unset[int] = None
    """Voxels along the mesh's longest side."""
    faces: Unset[int] = None
    """Triangles of the mesh, about."""
    texture_size: Unset[int] = None
    """Side of the texture in pixels."""

    def fit(self, effort: "Effort", seed: int) -> "FitSettings":
        """Return the settings of the splats' fit."""
        from engine.splats.fitting import FitSettings

        return FitSettings(
            iterations=_own(self.iterations, effort.iterations), sh_degree=effort.sh_degree,
            max_gaussians=effort.max_gaussians, hull_cells=effort.hull_cells, seed=seed,
        )  # fmt: skip

    def mesh(self, effort: "Effort", threads: int) -> "MeshSettings":
        """Return the mesh's settings."""
        from engine.meshing import MeshSettings

        return MeshSettings(
            resolution=_own(self.resolution, effort.resolution), target_faces=_own(self.faces, effort.faces),
            texture_size=_own(self.texture_size, effort.texture_size), surface=_own(self.surface, effort.surface),
            free_views=effort.free_views, smoothing_steps=effort.smoothing_steps, threads=threads,
        )  # fmt: skip


def _own(given: Any, preset: Any) -> Any:
    return preset if given is None else given
