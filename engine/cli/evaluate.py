"""`turntable evaluate`: how good a preset is on stored orbits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import OmitArgPrefixes as Flags

from engine.cli.computing import Computing, Work
from engine.cli.generate import Denoising
from engine.cli.running import needing, progress_bars, set_threads, silence_libraries
from engine.command_line import Answer, Several, Talk, Unset

if TYPE_CHECKING:
    from engine.evaluate import EvaluateSettings
    from engine.presets import Effort


@dataclass(frozen=True)
class Measured:
    """What is measured; each figure of an object is written down as it is made."""

    limit: Unset[int] = None
    """Only so many objects, the first ones of the shards."""
    size_px: Unset[int] = None
    """Side at which views are compared: the true ones' or the preset's, whichever is smaller, unless given."""
    baseline_starts: Literal["stored", "any"] = "stored"
    """Nearest training object: by its first stored view, or by whichever of its views is nearest."""
    cross_view_every: int = 1
    """Agreement of the views (splats of half of them, seen from the other half) of every so-many-th object; 0: none."""
    splats_every: int = 5
    """Splats against the true views, of every so-many-th object; 0: none."""
    mesh_every: int = 10
    """With --truth: meshes against the true ones, of every so-many-th object (slow); 0: none."""
    no_ceiling: bool = False
    """Leave out the true views themselves, measured as the generated ones are: the best that could be reached."""
    examples: int = 6
    """Objects on examples.png, from the best to the worst."""


@dataclass(frozen=True)
class Evaluate:
    """Measure a preset on stored orbits: PSNR, SSIM and LPIPS of its views, how well they agree, its splats and meshes.

    Every object's first view (or caption) goes in, with the true orbit's cameras; beside the preset stand two baselines,
    the input view repeated and the nearest training object's views. Prints a table and writes evaluation.json,
    examples.png and the generated orbits. A run that was stopped goes on with the same command.
    For example: turntable evaluate --preset tiny --orbits val.tar --baseline-orbits "train-*.tar" --out results/tiny
    """

    orbits: tuple[str, ...]
    """Shards of the objects: tars, folders, globs, brace patterns or URLs. Their orbit must be the preset's."""
    preset: str
    """As for `turntable generate`."""
    out: Path
    """The evaluation's folder."""
    baseline_orbits: Several[str] = ()
    """Shards of the training objects: for the baseline, and to tell which labels training has seen."""
    truth: Unset[Path] = None
    """Folder of the true meshes, KEY.glb; meshes are measured against them."""
    lpips: Unset[Path] = None
    """Weights of the network behind LPIPS (.pth of VGG16, AlexNet or SqueezeNet); without them LPIPS is left out."""
    compare: Several[str] = ()
    """Ways of sampling to compare from the same noise: plain, 3d-aware, 3d-aware-conditional (VideoMV); unrefined,
    refined (Hi3D). Given with spaces or commas between; none: once, as the flags say."""
    source: Unset[Literal["picture", "text"]] = None
    """What a preset that knows both starts from: a picture unless given."""
    weights: Unset[str] = None
    """As for `turntable generate`."""
    seed: int = 0
    """Of the noise; every object draws its own from it."""
    measured: Flags[Measured] = field(default_factory=Measured)
    """What is measured."""
    denoising: Flags[Denoising] = field(default_factory=lambda: Denoising(framing="kept"))
    """How views are sampled."""
    work: Flags[Work] = field(default_factory=Work)
    """How much work goes into splats and meshes that are held against the truth."""
    computing: Flags[Computing] = field(default_factory=Computing)
    """What computes."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def perform(self) -> Answer:
        """Evaluate and print the table."""
        set_threads(self.computing.threads)
        with needing("evaluate", "models,mesh,train"):
            import torch

            from engine.evaluate import Given, evaluate
            from engine.presets import preset_named
        torch.set_num_threads(self.computing.threads)
        silence_libraries()
        preset = preset_named(self.preset)
        given = Given(self.orbits, self.baseline_orbits, self.truth, self.lpips, self.weights)
        with progress_bars(self.talk.quiet) as progress:
            _, table = evaluate(given, preset, self.out, self._settings(preset.effort), progress=progress)
        return Answer(f"{table}\n\n{self.out}")

    def _settings(self, effort: "Effort") -> "EvaluateSettings":
        from engine.evaluate import EvaluateSettings

        what, computing = self.measured, self.computing
        return EvaluateSettings(
            sampling=self.denoising.sampling(),
            compare=tuple(name for typed in self.compare for name in typed.split(",") if name),
            source=self.source,
            seed=self.seed,
            limit=what.limit,
            size_px=what.size_px,
            starts=what.baseline_starts,
            cross_view_every=what.cross_view_every,
            splats_every=what.splats_every,
            mesh_every=what.mesh_every,
            ceiling=not what.no_ceiling,
            fit=self.work.fit(effort, self.seed),
            mesh=self.work.mesh(effort, computing.threads),
            examples=what.examples,
            device=computing.device,
            dtype=computing.dtype,
            offload=computing.offload,
            compile=computing.compile,
        )
