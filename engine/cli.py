"""The command `turntable`: arguments in, results on stdout, everything else on stderr; exit status as command_line says."""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import EXIT_FAILURE, Answer, Talk, Unset, run_command_line
from engine.errors import MissingDependencyError

if TYPE_CHECKING:
    from engine.reconstruct import Progress

DESCRIPTION = "Turntable: orbits in, Gaussian splats and textured meshes out. --version prints the version."


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
    depth: Literal["auto", "orbit", "splats"] = "auto"
    """Where the mesh's depth comes from: the orbit's maps where it has them (auto), or the splats."""
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


@dataclass(frozen=True)
class Summary:
    """Print a result folder's files and its figures."""

    result: Annotated[Path, tyro.conf.Positional]
    """The result folder."""
    json: bool = False
    """Print the whole report as JSON instead."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Doctor:
    """Say what this machine can do and what is missing, each with its fix. Exits with 1 if something needed is."""

    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


Command = (
    Annotated[Reconstruct, tyro.conf.subcommand("reconstruct")]
    | Annotated[Summary, tyro.conf.subcommand("summary")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    return run_command_line(
        Command, _perform, arguments, program="turntable", description=DESCRIPTION,
        stopped="whole stages are kept; the same command goes on from there",
    )  # fmt: skip


def _perform(command: Reconstruct | Summary | Doctor) -> Answer:
    if isinstance(command, Reconstruct):
        _reconstruct(command)
        return Answer(str(command.out))
    if isinstance(command, Summary):
        from engine.results import read_report
        from engine.summary import summary

        report = read_report(command.result)
        return Answer(json.dumps(report, indent=1) if command.json else summary(command.result, report))
    from engine.doctor import diagnose, format_report

    diagnosis = diagnose()
    return Answer(format_report(diagnosis), 0 if diagnosis.ok else EXIT_FAILURE)


def _reconstruct(command: Reconstruct) -> None:
    # Threads that spin while they wait slow the others down (torch and numba each have a pool); read at first import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = str(command.threads)
    try:
        import torch

        from engine.meshing import MeshSettings
        from engine.reconstruct import ReconstructSettings, reconstruct
        from engine.splats.fitting import FitSettings
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"reconstruct needs {error.name}: pip install 'turntable3d[models,mesh]'; see `turntable doctor`"
        ) from error
    torch.set_num_threads(command.threads)
    settings = ReconstructSettings(
        holdout_every=command.holdout_every,
        depth=command.depth,
        device=command.device,
        fit=FitSettings(
            iterations=command.iterations, sh_degree=command.sh_degree, max_gaussians=command.max_gaussians,
            seed=command.seed,
        ),
        mesh=MeshSettings(
            resolution=command.resolution,
            target_faces=command.faces, texture_size=command.texture_size, threads=command.threads
        ),
    )  # fmt: skip
    with _progress_bars(command.talk.quiet) as progress:
        reconstruct(
            command.orbit, command.out, settings, truth=command.truth, redo_from=command.redo_from, progress=progress
        )


@contextmanager
def _progress_bars(quiet: bool) -> Iterator["Progress"]:
    """One bar a stage on stderr: how far, how long still. Nothing without a terminal."""
    bars: dict[str, tqdm] = {}

    def show(stage: str, done: int, total: int, words: str) -> None:
        if stage not in bars:
            for bar in bars.values():
                bar.close()
            bars[stage] = tqdm(desc=stage, total=total, disable=True if quiet else None, file=sys.stderr)
        bars[stage].set_postfix_str(words, refresh=False)
        bars[stage].update(done - bars[stage].n)

    with logging_redirect_tqdm():
        try:
            yield show
        finally:
            for bar in bars.values():
                bar.close()


if __name__ == "__main__":
    sys.exit(main())
