"""One object: `render` and `example`."""

import logging

from render_farm.cli.objects import Example, Render
from render_farm.cli.work.progress import count_bar
from render_farm.example import make_example
from render_farm.render import render_asset

log = logging.getLogger(__name__)


def render(flags: Render) -> str:
    """Render, and return what goes to stdout."""
    with count_bar("views", flags.talk.quiet) as progress:
        report = render_asset(
            flags.asset, flags.out, flags.spec.spec(),
            execution=flags.compute.execution(flags.threads, flags.spec.hdri_folder), uid=flags.uid,
            provenance=flags.provenance, progress=progress,
        )  # fmt: skip
    if not report.reused:
        log.info("%d views in %.1f s, %.1f CPU seconds, at most %.0f MiB", report.views, report.wall_s, report.cpu_s,
                 report.peak_bytes / 2**20)  # fmt: skip
    return "\n".join(str(path) for path in report.paths)


def example(flags: Example) -> str:
    """Make it, and return what goes to stdout."""
    return str(make_example(flags.out, threads=flags.threads))
