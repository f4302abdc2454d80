"""Bars on stderr: what, how far, how long still. Without a terminal, a line in the log every half minute."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from render_farm.cli.wording import duration
from render_farm.run.progress import Snapshot

log = logging.getLogger(__name__)

LINE_EVERY_S = 30.0
FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {postfix}"


@contextmanager
def farm_bar(what: str, quiet: bool) -> Iterator[Callable[[Snapshot], None]]:
    """Yield a callback that shows a scheduler's progress."""
    spoken = time.monotonic()
    with tqdm(desc=what, disable=True if quiet else None, bar_format=FORMAT) as bar, logging_redirect_tqdm():

        def show(snapshot: Snapshot) -> None:
            nonlocal spoken
            bar.total = snapshot.total
            bar.set_postfix_str(_words(snapshot), refresh=False)
            bar.update(snapshot.done + snapshot.failed - bar.n)
            bar.refresh()
            if not sys.stderr.isatty() and time.monotonic() - spoken >= LINE_EVERY_S:
                log.info("%s: %d of %d, %s", what, snapshot.done + snapshot.failed, snapshot.total, _words(snapshot))
                spoken = time.monotonic()

        yield show


@contextmanager
def count_bar(unit: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for how many are done, and of how many."""
    with tqdm(unit=unit, disable=True if quiet else None) as bar, logging_redirect_tqdm():

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


def _words(snapshot: Snapshot) -> str:
    words = [f"{snapshot.rate_per_h:,.0f}/h"] if snapshot.rate_per_h else []
    words += [f"{duration(snapshot.eta_s)} left"] if snapshot.eta_s is not None else []
    words += [f"{snapshot.failed} failed"] if snapshot.failed else []
    words += [f"paused: {snapshot.paused}"] if snapshot.paused else []
    busiest = max((slot.rss_bytes for slot in snapshot.slots), default=0)
    return ", ".join([*words, f"{snapshot.shards_sealed}/{snapshot.shards} shards", f"{busiest / 2**20:.0f} MiB"])
