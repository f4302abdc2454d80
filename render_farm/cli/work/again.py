"""Something again: `retry` and `replay`."""

import logging
import math

from render_farm.cli.again import Replay, Retry
from render_farm.cli.options import cores
from render_farm.cli.work.progress import count_bar
from render_farm.cli.work.wording import count
from render_farm.errors import REASONS, RunError
from render_farm.run.folder import Run
from render_farm.run.replaying import replay
from render_farm.run.retrying import retry

log = logging.getLogger(__name__)


def retry_failures(flags: Retry) -> str:
    """Put them up, and return what goes to stdout."""
    unknown = sorted(set(flags.reason) - REASONS)
    if unknown:
        raise RunError(f"there is no reason {unknown[0]!r}; `turntable-farm failures FOLDER --by reason` lists them")
    done = retry(Run.open(flags.folder), flags.reason, workers=cores())
    if not done.reset + done.added:
        return f"nothing to try again: no object failed with {', '.join(flags.reason)}; --reason names others"
    log.info("%s of open shards, %d of sealed ones in a new batch", count(done.reset, "object"), done.added)
    return f"{count(done.reset + done.added, 'object')} to try again: turntable-farm run {flags.folder}"


def replay_object(flags: Replay) -> str:
    """Render, and return what goes to stdout."""
    with count_bar("views", flags.talk.quiet) as progress:
        done = replay(
            Run.open(flags.folder), flags.uid, flags.out,
            execution=flags.compute.execution(flags.threads, flags.hdri_folder), progress=progress,
        )  # fmt: skip
    for name, likeness in done.likeness.items():
        cameras = "same cameras" if likeness.same_cameras else "OTHER CAMERAS"
        light = "same light" if likeness.same_light else "OTHER LIGHT"
        pixels = (
            "same pixels" if math.isinf(likeness.psnr_db) else f"pixels {likeness.psnr_db:.1f} dB from those stored"
        )
        log.info("%s: %s, %s, %s", name, cameras, light, pixels)
    if not done.likeness:
        log.info("the run has no orbits of %s to compare with", flags.uid)
    return "\n".join(str(path) for path in done.paths)
