"""What a run learns from, as the loop wants it: shards that were named -> Feed."""

from collections.abc import Sequence

from engine.training.data.batches import Loader, loader
from engine.training.data.sources import find_shards
from engine.training.loop.settings import Feed, Reader
from engine.training.plans import DataPlan

HELD_OUT_WORKERS = 1
"""Processes that read held-out objects: they come rarely, and new ones are started each time."""


def feed_from(
    plan: DataPlan,
    data: Sequence[str],
    held_out: Sequence[str] = (),
    pictures: Sequence[str] = (),
    *,
    seed: int,
    workers: int,
) -> Feed:
    """Return the feed of a run.

    Args:
        plan: the recipe's.
        data: shards, as typed; see `sources`.
        held_out: shards to measure on; none: no validation.
        pictures: shards of 2D pictures.
        seed: the run's.
        workers: processes that read, for each that learns; 0: it does so itself.

    Raises TrainingError where no shard is found.
    """
    orbits, stills = find_shards(data), find_shards(pictures) if pictures else None
    kept_out = find_shards(held_out) if held_out else None

    def train(reader: Reader) -> Loader:
        return loader(
            plan, orbits, pictures=stills, batch_size=reader.micro_batch, seed=seed, rank=reader.rank,
            ranks=reader.ranks, workers=workers, start_after=reader.start_after,
        )  # fmt: skip

    def measure(reader: Reader) -> Loader:
        assert kept_out is not None
        return loader(
            plan, kept_out, batch_size=reader.micro_batch, seed=seed, rank=reader.rank, ranks=reader.ranks,
            workers=min(workers, HELD_OUT_WORKERS), endless=False,
        )  # fmt: skip

    return Feed(train, None if kept_out is None else measure)
