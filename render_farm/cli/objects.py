"""Commands about one object: `render` and `example`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm
from tyro.conf import OmitArgPrefixes as Flags

from render_farm.cli.options import ComputeFlags, SpecFlags, Talk, cores
from render_farm.example import make_example
from render_farm.records import Provenance
from render_farm.render import Progress, render_asset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Render:
    """Render the orbits of one model: posed RGBA views with depth, normals and base colour.

    Prints the path of each orbit's json. Whole orbits of the same model and settings are found and kept.
    """

    asset: Annotated[Path, tyro.conf.Positional]
    """The model: .glb .gltf .obj .fbx .ply .stl .usd .usda .usdc .usdz .dae .abc .blend"""
    out: Path
    """Folder for the orbits."""
    uid: str | None = None
    """The object's id in file names; by default the model's name."""
    threads: int = field(default_factory=cores)
    """Render threads."""
    spec: Flags[SpecFlags] = field(default_factory=SpecFlags)
    """What to render."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """How."""
    provenance: Flags[Provenance] = field(default_factory=Provenance)
    """What is known about the object."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Render, and return what goes to stdout."""
        with _progress_bar(self.asset.name, self.talk.quiet) as progress:
            report = render_asset(
                self.asset, self.out, self.spec.spec(),
                execution=self.compute.execution(self.threads, self.spec.hdri_folder), uid=self.uid,
                provenance=self.provenance, progress=progress,
            )  # fmt: skip
        if not report.reused:
            log.info("%d views in %.1f s, %.1f CPU seconds, at most %.0f MiB", report.views, report.wall_s, report.cpu_s,
                     report.peak_bytes / 2**20)  # fmt: skip
        return "\n".join(str(path) for path in report.paths)


@dataclass(frozen=True)
class Example:
    """Make the project's own example object, a toy lighthouse, as a .glb. Prints its path."""

    out: Path
    """The .glb to write."""
    threads: int = field(default_factory=cores)
    """Threads for Blender."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Make it, and return what goes to stdout."""
        return str(make_example(self.out, threads=self.threads))


@contextmanager
def _progress_bar(name: str, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr: views done, time left. Nothing without a terminal."""
    with tqdm(desc=name, unit="view", disable=True if quiet else None) as bar, logging_redirect_tqdm():

        def show(ready: int, total: int) -> None:
            bar.total = total
            bar.update(ready - bar.n)

        yield show
