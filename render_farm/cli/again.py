"""Commands that do something again: `retry` and `replay`."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes as Flags

from render_farm.cli.options import ComputeFlags, Talk, cores
from render_farm.cli.progress import count_bar
from render_farm.errors import REASONS, TRANSIENT, RunError
from render_farm.run.folder import Run
from render_farm.run.replaying import replay
from render_farm.run.retrying import retry

log = logging.getLogger(__name__)

RunFolder = Annotated[Path, tyro.conf.Positional]


@dataclass(frozen=True)
class Retry:
    """Put failed objects up for another try; `run FOLDER` then renders them. Sealed shards stay as they are."""

    folder: RunFolder
    """The run's folder."""
    reason: tuple[str, ...] = tuple(sorted(TRANSIENT))
    """Reasons of the failures to try again; by default those that may pass."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Put them up, and return what goes to stdout."""
        unknown = sorted(set(self.reason) - REASONS)
        if unknown:
            raise RunError(
                f"there is no reason {unknown[0]!r}; `turntable-farm failures FOLDER --by reason` lists them"
            )
        done = retry(Run.open(self.folder), self.reason, workers=cores())
        log.info("%d objects of open shards, %d of sealed ones in a new batch", done.reset, done.added)
        return f"{done.reset + done.added} objects to try again: turntable-farm run {self.folder}"


@dataclass(frozen=True)
class Replay:
    """Render one object of a run again, with the same cameras and light, and compare it with what is stored."""

    folder: RunFolder
    """The run's folder."""
    uid: Annotated[str, tyro.conf.Positional]
    """The object."""
    out: Path
    """Folder for its orbits."""
    threads: int = field(default_factory=cores)
    """Render threads."""
    hdri_folder: Path | None = None
    """HDR pictures, if the run's light needs them."""
    compute: Flags[ComputeFlags] = field(default_factory=ComputeFlags)
    """How."""
    talk: Flags[Talk] = field(default_factory=Talk)
    """How much is said."""

    def run(self) -> str:
        """Render, and return what goes to stdout."""
        with count_bar("views", self.talk.quiet) as progress:
            done = replay(
                Run.open(self.folder), self.uid, self.out,
                execution=self.compute.execution(self.threads, self.hdri_folder), progress=progress,
            )  # fmt: skip
        for name, likeness in done.likeness.items():
            cameras = "same cameras" if likeness.same_cameras else "OTHER CAMERAS"
            light = "same light" if likeness.same_light else "OTHER LIGHT"
            log.info("%s: %s, %s, pixels %.1f dB from those stored", name, cameras, light, likeness.psnr_db)
        if not done.likeness:
            log.info("the run has no orbits of %s to compare with", self.uid)
        return "\n".join(str(path) for path in done.paths)
