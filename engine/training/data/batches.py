"""Batches for one process of a run: shards in, `Batch` after `Batch` out, made by worker processes.

    Shards --Walk--> samples --Dealer--> Clips --collate--> Batch --torch's DataLoader--> the loop

Nothing here depends on, or changes, the state of a global random generator.
"""

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from engine.errors import TrainingError
from engine.training.data import clips, pictures
from engine.training.data.clips import ClipMaker, OrbitMembers
from engine.training.data.dealing import Dealer, Kind, Layout, Mixture, changed, next_batch, resumed, shares_shards
from engine.training.data.degradations import Degradations
from engine.training.data.pictures import PictureMembers
from engine.training.data.sources import Shards
from engine.training.data.stream import Part, Walk
from engine.training.data.tally import Counts, Tally, check
from engine.training.plans import DataPlan
from engine.training.types import Batch, Clip, Position, seed_from

log = logging.getLogger(__name__)

PREFETCHED = 2
"""Batches that each worker has ready."""


def collate(chosen: Sequence[Clip]) -> Batch:
    """Stack clips of one shape; orbits and pictures do not mix, nor clips with and without depth."""
    rgba = torch.from_numpy(np.stack([clip.rgba for clip in chosen]))  # [b, n, h, w, 4]
    backgrounds = torch.tensor([clip.background for clip in chosen], dtype=torch.float32)
    alpha = rgba[..., 3:].permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    pixels = rgba[..., :3].permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    behind = 255 * backgrounds[:, None, :, None, None]
    pixels.sub_(behind).mul_(alpha).add_(behind).div_(127.5).sub_(1)
    orbits = [clip.orbit for clip in chosen if clip.orbit is not None]
    depths = [clip.depth_m for clip in chosen if clip.depth_m is not None]
    low = [clip.degraded for clip in chosen if clip.degraded is not None]
    if any(len(found) not in (0, len(chosen)) for found in (orbits, depths, low)):
        raise ValueError("a batch's clips must all have, or all lack, cameras, depth and low-quality views")
    return Batch(
        pixels=pixels,
        alpha=alpha,
        orbits=tuple(orbits) or None,
        backgrounds=backgrounds,
        captions=tuple(clip.caption for clip in chosen),
        uids=tuple(clip.uid for clip in chosen),
        seeds=tuple(clip.seed for clip in chosen),
        positions=tuple(clip.position for clip in chosen),
        depth_m=torch.from_numpy(np.stack(depths)) if depths else None,
        degraded=_signed(np.stack(low)) if low else None,
        pixels_keys=tuple(clip.pixels_key for clip in chosen),
        starts=tuple(clip.start for clip in chosen),
    )


def _signed(rgb: np.ndarray) -> torch.Tensor:
    """0 to 255, channels last -> -1 to 1, channels before rows."""
    channels_first = torch.from_numpy(rgb).movedim(-1, 2)
    return channels_first.to(torch.float32, memory_format=torch.contiguous_format).div_(127.5).sub_(1)


@dataclass(frozen=True)
class _Settings:
    """All that a worker must know."""

    plan: DataPlan
    shards: Shards
    pictures: Shards | None
    batch_size: int
    pictures_batch_size: int
    seed: int
    layout: Layout
    start_after: Mapping[int, Position]
    endless: bool
    degradations: Degradations | None

    def orbits(self, worker: int, tally: Tally) -> Dealer:
        maker = ClipMaker(self.plan, self.seed, augment=self.endless, degradations=self.degradations)
        kind = Kind(partial(clips.look, plan=self.plan), maker.clip)
        return self._dealer(self.shards, OrbitMembers(self.plan.orbit, self.plan.depth), kind, worker, 0, tally)

    def stills(self, worker: int, tally: Tally) -> Dealer:
        assert self.pictures is not None, "asked for only where there are pictures"
        kind = Kind(
            partial(pictures.look, plan=self.plan), partial(pictures.picture_clip, plan=self.plan, seed=self.seed)
        )
        return self._dealer(self.pictures, PictureMembers(), kind, worker, self.layout.readers, tally)

    def _dealer(
        self, shards: Shards, members: OrbitMembers | PictureMembers, kind: Kind, worker: int, first_reader: int,
        tally: Tally,
    ) -> Dealer:  # fmt: skip
        layout, count = self.layout, len(shards.urls)
        readers = range(first_reader, first_reader + layout.readers)
        shared = not self.endless or shares_shards(count, layout.readers)
        part = None if shared else Part(layout.reader(worker), layout.readers)
        return Dealer(
            Walk(shards, members, seed_from(self.seed, first_reader > 0), part=part, order=not self.endless),
            kind, layout, worker=worker, reader=readers[layout.reader(worker)], shared=shared, endless=self.endless,
            batch_size=self.pictures_batch_size if first_reader else self.batch_size, tally=tally,
            start=resumed(self.positions(first_reader > 0), layout, worker=worker, first_reader=first_reader, shards=count),
        )  # fmt: skip

    def positions(self, of_pictures: bool) -> list[Position]:
        """Those of one kind of samples, whatever layout they are from."""
        return [
            position
            for position in self.start_after.values()
            if (position.reader >= (position.ranks * position.workers or self.layout.readers)) == of_pictures
        ]


@dataclass(frozen=True)
class _Delivery:
    """What a worker sends: a batch or why there will be none, and what was counted on the way."""

    batch: Batch | None
    counts: Counts = field(default_factory=Counts)
    failure: str = ""


class _Batches(IterableDataset[_Delivery]):
    """The micro-batches that fall to one worker."""

    def __init__(self, settings: _Settings) -> None:
        super().__init__()
        self._settings = settings

    def __iter__(self) -> Iterator[_Delivery]:
        info = get_worker_info()
        tallies = [Tally(s.patterns) for s in (self._settings.shards, self._settings.pictures) if s is not None]
        try:
            for batch in self._batches(0 if info is None else info.id, tallies):
                yield _Delivery(batch, sum((tally.taken() for tally in tallies), start=Counts()))
            yield _Delivery(None, sum((tally.taken() for tally in tallies), start=Counts()))
        except TrainingError as error:  # raised again beside the loop: through torch it would come with its trace
            yield _Delivery(None, sum((tally.taken() for tally in tallies), start=Counts()), str(error))

    def _batches(self, worker: int, tallies: Sequence[Tally]) -> Iterator[Batch]:
        settings, workers = self._settings, self._settings.layout.workers
        first = next_batch(settings.start_after) if settings.endless else 0
        mixed = settings.endless and settings.pictures is not None
        mixture = Mixture(settings.plan.picture_share if mixed else 0.0, settings.seed)
        reader = (first + worker) % workers  # micro-batch i is reader i's, whatever it began with
        orbits = settings.orbits(reader, tallies[0])
        stills = settings.stills(reader, tallies[1]) if mixed else None
        number, before = first + worker, mixture.pictures_before(first)
        while settings.endless or not orbits.exhausted:
            pictures_behind = mixture.pictures_before(number) - before
            if stills is not None and mixture.is_picture(number):
                made = stills.clips(pictures_behind, number)
            else:
                made = orbits.clips(number - first - pictures_behind, number)
            if made:
                yield collate(made)
            number += workers
        tallies[0].passed()


class Loader:
    """Batches of one process, in order; each `iter` begins anew."""

    def __init__(self, settings: _Settings, workers: int) -> None:
        """See `loader`."""
        self._settings, self._workers = settings, workers
        self.counts = Counts()
        """What was read since `iter`, by this process's workers, up to the last batch."""

    def __iter__(self) -> Iterator[Batch]:
        self.counts = Counts()
        patterns = self._settings.shards.patterns
        for delivery in self._deliveries():
            self.counts += delivery.counts
            if delivery.failure:
                raise TrainingError(delivery.failure)
            check(self.counts, patterns)
            if delivery.batch is not None:
                yield delivery.batch

    def _deliveries(self) -> Iterator[_Delivery]:
        dataset = _Batches(self._settings)
        if not self._workers:
            yield from dataset
            return
        yield from DataLoader(
            dataset, batch_size=None, num_workers=self._workers, prefetch_factor=PREFETCHED, worker_init_fn=_deaf,
            generator=torch.Generator(),  # its own: torch's global one is the loop's
        )  # fmt: skip


def _deaf(_: int) -> None:
    """Stopping is the main process's affair: a scheduler signals all of a job, and the loop wants its batch."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def loader(
    plan: DataPlan,
    shards: Shards,
    *,
    pictures: Shards | None = None,
    batch_size: int,
    seed: int,
    rank: int = 0,
    ranks: int = 1,
    workers: int = 0,
    start_after: Mapping[int, Position] | None = None,
    endless: bool = True,
    pictures_batch_size: int | None = None,
    degradations: Degradations | None = None,
) -> Loader:
    """Return what one process learns from.

    With fewer shards than readers (ranks x workers) the global order of samples depends on the seed alone, and sample k
    of it goes to rank k % ranks; every reader then reads all shards, but decodes only its samples. With more, each
    reader has shards of its own, dealt anew in every pass.

    Args:
        plan: how orbits become clips.
        shards: orbits.
        pictures: 2D pictures for plan.picture_share of the micro-batches; which ones, all ranks agree on.
        batch_size: clips of a micro-batch of this rank.
        seed: the run's.
        rank: of this process.
        ranks: processes.
        workers: worker processes of each; 0 decodes in this one.
        start_after: last position learned from of each reader (of all ranks, or of this one): goes on behind it.
        endless: pass after pass, shuffled and augmented; or one pass as stored with nothing augmented, where every
            sample comes once and ranks may get unequally many.
        pictures_batch_size: pictures of a micro-batch, if not batch_size.
        degradations: of the refiner's low-quality views, if not those that suit their size (see `degradations.suited`).

    Raises:
        TrainingError: while iterating: no sample is there, none fits the plan, or too many are bad.
        ValueError: numbers that make no sense.
    """
    for name, number, least in (("batch_size", batch_size, 1), ("ranks", ranks, 1), ("workers", workers, 0)):
        if number < least:
            raise ValueError(f"{name} must be at least {least}, got {number}")
    if not 0 <= rank < ranks:
        raise ValueError(f"rank must lie between 0 and {ranks - 1}, got {rank}")
    if plan.picture_share > 0 and pictures is None and endless:
        raise TrainingError(
            f"the recipe learns from 2D pictures in {plan.picture_share:.0%} of its steps: pass --pictures"
        )
    layout = Layout(rank, ranks, max(workers, 1))
    settings = _Settings(
        plan, shards, pictures, batch_size, pictures_batch_size or batch_size, seed, layout, dict(start_after or {}),
        endless, degradations,
    )  # fmt: skip
    before = list(settings.start_after.values())
    if changed(before, layout):
        log.warning(
            "the data was read by %d processes with %d workers each, now by %d with %d: goes on at the same share of the "
            "pass, not with the same batches", before[0].ranks, before[0].workers, ranks, layout.workers,
        )  # fmt: skip
    return Loader(settings, workers)
