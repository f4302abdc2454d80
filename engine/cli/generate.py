"""`turntable generate`: a picture or a sentence becomes an orbit, splats and a textured mesh."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.computing import Computing, Work
from engine.cli.running import needing, progress_bars, set_threads, silence_libraries
from engine.command_line import Answer, Talk, Unset

if TYPE_CHECKING:
    from engine.generate import GenerateSettings
    from engine.multiview.settings import Sampling
    from engine.presets import Effort


@dataclass(frozen=True)
class Views:
    """Which orbit is generated; what is not given is as the weights were trained."""

    views: Unset[int] = None
    """Number of views on the full circle."""
    elevation_deg: Unset[float] = None
    """Degrees above the horizon from which the picture was taken and the orbit is seen."""
    distance_m: Unset[float] = None
    """Distance of the cameras; the object's longest side is 1."""
    start_azimuth_deg: float = 0.0
    """Azimuth of the picture, or of the first view: 0 is Blender's front view, counter-clockwise seen from above."""
    beyond_training: bool = False
    """Allow views, elevations and distances that the weights never saw."""


@dataclass(frozen=True)
class Denoising:
    """How the views are sampled."""

    steps: Unset[int] = None
    """Denoising steps: the preset's own number unless given."""
    spacing: Unset[Literal["leading", "trailing", "leap"]] = None
    """VideoMV: times of the steps, the preset's own unless given: as released (leading), from pure noise on evenly
    (trailing), or past the noise's middle (leap), where few steps would choose one of many orbits, mostly a wrong one."""
    guidance_scale: Unset[float] = None
    """Classifier-free guidance: the preset's own unless given (Hi3D: that of the last view)."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Share of the steps between which guidance works; a narrower one is faster."""
    refinement: Literal["off", "both", "conditional"] = "both"
    """3D-aware sampling where the weights hold a reconstructor: both branches, the conditional one (faster), or off."""
    refine_share: Unset[float] = None
    """Of the splats' views in the refined ones, above 0 to 1; the rest are the denoiser's own."""
    refine_first: Unset[float] = None
    """Share of the steps before the first 3D-aware refinement: the preset's own unless given (VideoMV: 0.4)."""
    refine_every: Unset[int] = None
    """Steps from one refinement to the next: the preset's own unless given (VideoMV: 10); never the last one."""
    cameras: Literal["consistent", "released"] = "consistent"
    """What the reconstructor is told; released repeats VideoMV's additional flip of the camera axes."""
    framing: Literal["recentred", "kept", "released"] = "recentred"
    """The object in the middle of the frame; the picture's own frame (kept), for a render by a camera of the orbit that
    is asked for; or for Hi3D the picture as it is, as the release does."""
    first_stage_only: bool = False
    """Hi3D: leave out the second stage, which refines the views to twice the size."""
    separate_branches: bool = False
    """Run guidance's two branches one after the other: half the memory, slower."""
    vae_chunk: int = 8
    """Pictures that the VAE works on at once; 1 needs the least memory."""

    def sampling(self) -> "Sampling":
        """Return the same as the pipelines take it. Raises ValueError for a setting out of its range."""
        from engine.multiview.settings import Sampling

        return Sampling(
            steps=self.steps,
            spacing=self.spacing,
            guidance_scale=self.guidance_scale,
            guidance_interval=self.guidance_interval,
            batched_guidance=not self.separate_branches,
            refinement=self.refinement,
            second_stage=not self.first_stage_only,
            refine_first=self.refine_first,
            refine_share=self.refine_share,
            refine_every=self.refine_every,
            cameras=self.cameras,
            framing=self.framing,
            vae_chunk=self.vae_chunk,
        )


@dataclass(frozen=True)
class Generate:
    """Turn a picture or a sentence into views, splats.ply, mesh.glb, turntable.mp4, preview.png and report.json.

    Prints the result folder. Stages whose files are whole are not run again, so a run that was stopped goes on.
    """

    out: Path
    """The result folder."""
    preset: str
    """mini and mini-hi3d come with their weights, for a CPU (mini also takes a sentence, of which it makes rough shapes);
    videomv-text, videomv-image and hi3d take --weights; tiny and tiny-hi3d have random ones, for tests."""
    image: Unset[Path] = None
    """A picture of one object: transparent, before a plain background, or any with the extra `matting`."""
    text: Unset[str] = None
    """A sentence about one object."""
    weights: Unset[str] = None
    """Folder that `turntable convert` wrote, or hub id of such a folder."""
    text_to_image: Unset[str] = None
    """With --text: a diffusers text-to-image pipeline (folder or hub id) that paints the picture first."""
    seed: int = 0
    """Of the noise: the same seed gives the same asset on one device."""
    redo_from: Annotated[
        Literal["picture", "views", "splats", "mesh", "turntable", "quality"] | None,
        tyro.conf.arg(name="from", help_behavior_hint=""),
    ] = None
    """Redo this stage and those after it, even if their files are whole."""
    orbit: Flags[Views] = field(default_factory=Views)
    """Which orbit."""
    denoising: Flags[Denoising] = field(default_factory=Denoising)
    """How it is sampled."""
    splats: Literal["fit", "feed-forward"] = "fit"
    """Splats fitted to all views, or the reconstructor's from a few (seconds, coarser)."""
    work: Flags[Work] = field(default_factory=Work)
    """How much work goes into splats and mesh."""
    computing: Flags[Computing] = field(default_factory=Computing)
    """What computes."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Generate and print the result folder."""
        set_threads(self.computing.threads)
        with needing("generate", "models,mesh"):
            import torch

            from engine.generate import Asked, generate
            from engine.presets import preset_named
        torch.set_num_threads(self.computing.threads)
        silence_libraries()
        preset = preset_named(self.preset)
        asked = Asked(self.image, self.text)
        settings = self._settings(preset.effort)
        with progress_bars(self.talk.quiet) as progress:
            generate(
                asked, preset, self.out, settings, weights=self.weights, redo_from=self.redo_from, progress=progress
            )  # fmt: skip
        return Answer(str(self.out))

    def _settings(self, effort: "Effort") -> "GenerateSettings":
        from engine.generate import GenerateSettings
        from engine.multiview.orbits import OrbitRequest
        from engine.reconstruct import ReconstructSettings

        orbit, computing = self.orbit, self.computing
        return GenerateSettings(
            orbit=OrbitRequest(
                orbit.views, orbit.elevation_deg, orbit.distance_m, orbit.start_azimuth_deg, orbit.beyond_training
            ),
            sampling=self.denoising.sampling(),
            seed=self.seed,
            dtype=computing.dtype,
            offload=computing.offload,
            compile=computing.compile,
            splats=self.splats,
            text_to_image=self.text_to_image,
            reconstruct=ReconstructSettings(
                device=computing.device,
                fit=self.work.fit(effort, self.seed),
                mesh=self.work.mesh(effort, computing.threads),
                turntable_frames=effort.turntable_frames,
            ),
        )
