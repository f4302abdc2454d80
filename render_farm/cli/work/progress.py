"""Bars on stderr: what, how far, how long still. Without a terminal, a line in the log every half minute."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from render_farm.cli.work.wording import duration
from render_farm.run.progress import Snapshot

log = logging.getLogger(__name__)

LINE_EVERY_S = 30.0
FARM_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Lines:
    """What a log file gets in place of a bar: a line now and then, so that it stays readable."""

    def __init__(self, what: str) -> None:
        self._what, self._begun = what, time.monotonic()
        self._next = 0.0 if sys.stderr.isatty() else self._begun + LINE_EVERY_S

    def show(self, done: int, total: int, words: str | None = None) -> None:
        """Write a line if it is time: with the words, or else with the rate so far and what is left by it."""
        now = time.monotonic()
        if not self._next or now < self._next:
            return
        if words is None:
            rate = done / (now - self._begun)
            words = f"{3600 * rate:,.0f}/h, {duration((total - done) / rate)} left" if done else "none yet"
        log.info("%s: %d of %d, %s", self._what, done, total, words)
        self._next = now + LINE_EVERY_S


@contextmanager
def farm_bar(what: str, quiet: bool) -> Iterator[Callable[[Snapshot], None]]:
    """Yield a callback that shows a scheduler's progress."""
    lines = Lines(what)
    with tqdm(desc=what, disable=True if quiet else None, bar_format=FARM_FORMAT) as bar, logging_redirect_tqdm():

        def show(snapshot: Snapshot) -> None:
            done = snapshot.done + snapshot.failed
            bar.total = snapshot.total
            bar.set_postfix_str(_words(snapshot), refresh=False)
            bar.update(done - bar.n)
            bar.refresh()
            lines.show(done, snapshot.total, _words(snapshot))

        yield show


@contextmanager
def count_bar(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback for how many are done, and of how many."""
    lines = Lines(what)
    with tqdm(desc=what, unit=f" {what}", disable=True if quiet else None) as bar, logging_redirect_tqdm():

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            lines.show(done, total)

        yield show


def _words(snapshot: Snapshot) -> str:
    words = [f"{snapshot.rate_per_h:,.0f}/h"] if snapshot.rate_per_h else []
    words += [f"{duration(snapshot.eta_s)} left"] if snapshot.eta_s is not None else []
    words += [f"{snapshot.failed} failed"] if snapshot.failed else []
    words += [f"paused: {snapshot.paused}"] if snapshot.paused else []
    busiest = max((slot.rss_bytes for slot in snapshot.slots), default=0)
    return ", ".join([*words, f"{snapshot.shards_sealed}/{snapshot.shards} shards", f"{busiest / 2**20:.0f} MiB"])
