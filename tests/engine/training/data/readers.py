"""Reading small shards in tests as the loop does: some batches, of one rank or of all."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from engine.training.data.batches import loader
from engine.training.data.sources import Shards, find_shards
from engine.training.plans import DataPlan
from engine.training.types import Batch, Position
from tests.engine.training.small_orbits import (
    VIEWS,
    rewrite,
    small_shards,
)  # fmt: skip

PLAN = DataPlan(orbit="ring6", views=VIEWS, size_px=16, mirror=0.5, colour=0.5, background="random", caption="object")


def shards_of(folder: Path, *counts: int, **options) -> Shards:
    return find_shards([str(path) for path in small_shards(folder, counts, **options)])


def read(shards: Shards, count: int, plan: DataPlan = PLAN, **options) -> list[Batch]:
    return list(islice(loader(plan, shards, **{"batch_size": 1, "seed": 0} | options), count))


def all_ranks(shards: Shards, count: int, ranks: int, **options) -> list[list[Batch]]:
    """Each rank's batches, by step."""
    every = [read(shards, count, rank=rank, ranks=ranks, **options) for rank in range(ranks)]
    return list(zip(*every, strict=True))


def told(batches: Iterable[Batch]) -> list[tuple]:
    """All of some batches' clips, in the global order: the first of each, then the second of each ..."""
    batches = list(batches)
    return [
        (b.uids[k], b.seeds[k], b.starts[k], b.captions[k], b.pixels[k].numpy().tobytes())
        for k in range(len(batches[0]))
        for b in batches
    ]


def uids(batches: Iterable[Batch]) -> list[str]:
    return [uid for batch in batches for uid in batch.uids]


def learned(batches: Iterable[Batch]) -> dict[int, Position]:
    """What the loop stores: the last position of each reader, through json."""
    last = {p.reader: p for batch in batches for p in batch.positions}
    return {reader: Position(**asdict(position)) for reader, position in last.items()}


def spoil(path: Path, changes: dict) -> None:
    """Change the bytes of one view of some objects; a change to None leaves the file out."""

    def change(name: str, data: bytes) -> bytes | None:
        spoiling = changes.get(name.partition(".")[0])
        return spoiling(data) if spoiling and "rgba_02" in name else data

    rewrite(path, change)


def spoiled_inside(data: bytes) -> bytes:
    """A WebP whose header is sound."""
    return data[:16] + b"\xff" * (len(data) - 16)
