"""What a loader counted while it read: for the log, where the loader counts at all."""

import logging
from collections.abc import Iterable

from engine.training.data.tally import Counts

log = logging.getLogger(__name__)


def counted(loader: Iterable[object]) -> dict[str, float]:
    """Return good and bad samples so far, as curves."""
    counts = getattr(loader, "counts", None)
    return {"data/good": float(counts.good), "data/bad": float(counts.all_bad)} if isinstance(counts, Counts) else {}


def tell_counts(loader: Iterable[object]) -> None:
    """Say at the end what was skipped, and why."""
    counts = getattr(loader, "counts", None)
    if isinstance(counts, Counts) and counts.all_bad:
        reasons = ", ".join(f"{number} {reason}" for reason, number in counts.bad.items())
        log.warning("%d of %d samples were skipped: %s", counts.all_bad, counts.read, reasons)
