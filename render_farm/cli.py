"""The command `turntable-farm`: arguments in, results on stdout, everything else on stderr.

Exit status: 0 something was produced (or was there already), 1 failure, 2 usage, 130 stopped by Ctrl-C.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from engine.command_line import (
    EXIT_FAILURE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Quiet,
    Verbose,
    end_politely_on_sigterm,
    product_version,
    set_up_logging,
)
from engine.errors import TurntableError
from render_farm.errors import FarmError
from render_farm.example import make_example
from render_farm.render import Progress, Provenance, render_asset
from render_farm.spec import Denoise, Device, Execution, Light, RenderSpec

log = logging.getLogger(__name__)

DESCRIPTION = "Turntable's render farm: 3D assets in, orbits of posed pictures out. --version prints the version."


@dataclass(frozen=True)
class Render:
    """Render the orbit of one model: posed RGBA views with depth, normals and base colour.

    Prints the path of the orbit's json. A whole orbit of the same model and settings is found and kept.
    """

    asset: Annotated[Path, tyro.conf.Positional]
    """The model: .glb .gltf .obj .fbx .ply .stl .usd .usda .usdc .usdz .dae .blend"""
    out: Path
    """Folder for the orbit."""
    orbit: Literal["ring24", "ring16"] = "ring24"
    """ring24: 24 views, VideoMV's; ring16: 16 views, Hi3D's."""
    size: int = 256
    """Width and height in pixels."""
    samples: int = 64
    """Paths for each pixel; 16 is enough with --denoise fast."""
    seed: int | None = None
    """What elevation and noise are drawn from; by default derived from the model's bytes and the orbit."""
    elevation_deg: float | None = None
    """Degrees above the horizon; by default drawn from the orbit's range."""
    uid: str | None = None
    """The object's id in file names; by default the model's name."""
    light: Light = "uniform"
    """uniform: a white sky all around, the same in every view."""
    denoise: Denoise = "none"
    """fast: Open Image Denoise with its FAST settings."""
    device: Device = "cpu"
    """gpu: an error where Blender finds none."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Render threads."""
    import_timeout_s: float = 300.0
    """Seconds that reading the model may take."""
    view_timeout_s: float = 300.0
    """Seconds that one view may take (the first one: three times that)."""
    provenance: tyro.conf.OmitArgPrefixes[Provenance] = field(default_factory=Provenance)
    """What is known about the object."""
    verbose: Verbose = False
    """Say more, Blender's own words among it."""
    quiet: Quiet = False
    """Say nothing but errors."""


@dataclass(frozen=True)
class Example:
    """Make the project's own example object, a toy lighthouse, as a .glb. Prints its path."""

    out: Path
    """The .glb to write."""
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Threads for Blender."""
    verbose: Verbose = False
    """Say more, Blender's own words among it."""
    quiet: Quiet = False
    """Say nothing but errors."""


Command = Annotated[Render, tyro.conf.subcommand("render")] | Annotated[Example, tyro.conf.subcommand("example")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--version" in given:
        sys.stdout.write(f"turntable-farm {product_version()}\n")
        return 0
    command = tyro.cli(Command, prog="turntable-farm", description=DESCRIPTION, args=given)
    set_up_logging(command.verbose, command.quiet)
    end_politely_on_sigterm()
    try:
        result = _render(command) if isinstance(command, Render) else make_example(command.out, threads=command.threads)
    except KeyboardInterrupt:
        log.error("stopped: nothing unfinished was left behind; the same command starts again")
        return EXIT_INTERRUPTED
    except TurntableError as error:
        log.error("%s", error)
        if isinstance(error, FarmError) and error.detail:
            log.debug("the child's last words:\n%s", error.detail)
        return EXIT_FAILURE
    except ValueError as error:  # a setting out of its range
        log.error("%s", error)
        return EXIT_USAGE
    except Exception as error:
        log.debug("", exc_info=True)
        log.error("unexpected %s: %s; this is a bug, see the details with -v", type(error).__name__, error)
        return EXIT_FAILURE
    sys.stdout.write(f"{result}\n")
    return 0


def _render(command: Render) -> Path:
    spec = RenderSpec(
        ring=command.orbit, width=command.size, height=command.size, samples=command.samples, seed=command.seed,
        elevation_deg=command.elevation_deg, light=command.light, denoise=command.denoise,
    )  # fmt: skip
    execution = Execution(
        threads=command.threads, device=command.device, import_timeout_s=command.import_timeout_s,
        first_view_timeout_s=3 * command.view_timeout_s, view_timeout_s=command.view_timeout_s,
    )  # fmt: skip
    with _progress_bar(command.asset.name, command.quiet) as progress:
        report = render_asset(
            command.asset, command.out, spec, execution=execution, uid=command.uid, provenance=command.provenance,
            progress=progress,
        )  # fmt: skip
    if not report.reused:
        log.info("%d views in %.1f s, %.1f CPU seconds, at most %.0f MiB", report.views, report.wall_s, report.cpu_s,
                 report.peak_bytes / 2**20)  # fmt: skip
    return report.path


@contextmanager
def _progress_bar(name: str, quiet: bool) -> Iterator[Progress]:
    """A bar on stderr: views done, time left. Nothing without a terminal."""
    with tqdm(desc=name, unit="view", disable=True if quiet else None, file=sys.stderr) as bar, logging_redirect_tqdm():

        def show(ready: int, total: int) -> None:
            bar.total = total
            bar.update(ready - bar.n)

        yield show


if __name__ == "__main__":
    sys.exit(main())
