"""Flags of the commands that render many objects: `plan`, `run`, `worker`, `slurm`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import OmitArgPrefixes as Flags

from engine.command_line import Talk, Unset
from render_farm.cli.options import FarmFlags, NewRunFlags, RunFolder, SourceFlags, SpecFlags
from render_farm.engines.array_job import ArrayJob
from render_farm.records import Filters


@dataclass(frozen=True)
class AnyRun:
    """A run that is there, or is made now: what `plan` and `run` have in common."""

    folder: RunFolder
    """The run's folder."""
    source: Flags[SourceFlags] = field(default_factory=SourceFlags)
    """Which objects."""
    spec: Flags[SpecFlags] = field(default_factory=SpecFlags)
    """What to render."""
    filters: Flags[Filters] = field(default_factory=Filters)
    """What to leave out."""
    new: Flags[NewRunFlags] = field(default_factory=NewRunFlags)
    """Where to; fixed when the run is made."""
    farm: Flags[FarmFlags] = field(default_factory=FarmFlags)
    """How this machine works."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Plan(AnyRun):
    """Say how long a run will take, how much it will store and cost: renders a sample of its objects.

    Makes the run, or takes the one that is there; `run` then goes on with it. The sample's pictures are thrown away: what
    is kept is whole shards, and the sample is spread thinly over all of them.
    """

    sample: int = 24
    """Objects to render for the estimate."""
    price_per_hour: Unset[float] = None
    """Price of this machine, in any currency."""
    json: bool = False
    """Print the estimate as JSON."""


@dataclass(frozen=True)
class RunCommand(AnyRun):
    """Render a run to its end: objects in, sealed shards, manifest and report out.

    The first time, name the objects and what to render. After that the folder is enough: `run FOLDER` goes on where it
    was stopped or killed. Naming objects again adds those that the run does not have.
    """

    engine: Literal["local", "ray"] = "local"
    """local: this machine; ray: a Ray cluster, a shard at a time, the run's folder on a disk that all nodes share."""
    ray_address: Unset[str] = None
    """Address of the Ray cluster; by default the one this machine belongs to, or a new one on it."""


@dataclass(frozen=True)
class Worker:
    """Render a share of a run's shards: what a SLURM array job starts, or you on any machine that sees the folder.

    State and temporary files lie in --scratch, which must be this worker's own. Receipts tell what is sealed, so no two
    workers need to know of each other, as long as no shard is in the shares of two that run at a time: one split I/N for all,
    each share once. `manifest` merges the receipts when all are done.
    """

    folder: RunFolder
    """The run's folder."""
    shards: str
    """I/N: of the run's shards, in order, those at I, I + N, I + 2 N...; I from 0."""
    farm: Flags[FarmFlags] = field(default_factory=FarmFlags)
    """How this machine works."""
    hdri_folder: Unset[Path] = None
    """HDR pictures, if the run's light needs them."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""


@dataclass(frozen=True)
class Slurm:
    """Write the script of a SLURM job array that renders a run, and say how to submit it. Prints its path.

    A job that meets its time limit is not started again: --requeue is for nodes that fail. Submit the script again; sealed
    shards are passed over, but a shard that was not sealed mostly begins anew. So a shard must fit into --time with room to
    spare. It takes its objects times the seconds of a worker each that `plan` says, over the job's workers (--cpus, or
    --gpus): 256 objects of 30 s on 16 cores, 8 minutes. Choose --shard-objects so when the run is made, with `plan`.
    """

    folder: RunFolder
    """The run's folder, on a disk that all nodes share; `plan` makes it."""
    script: Path
    """The script to write."""
    job: Flags[ArrayJob] = field(default_factory=ArrayJob)
    """What is asked of the cluster."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""
