"""Samples dealt to readers: which clips are in which micro-batch of which process, whoever decodes them.

A rank's micro-batch number i is made by its worker i % workers (so torch's DataLoader hands them on in order).

    Shared shards (fewer than readers): everyone walks the one global order of sound samples; round j of it is
        `ranks x batch_size` samples, of which sample k goes to rank k % ranks. So 2 processes with batches of 1 learn
        from the same global batches as 1 process with batches of 2.
    Own shards: each reader walks shards of its own, and a batch is the next samples of that walk.

Readers are numbered rank * workers + worker; those of 2D pictures follow behind, ranks * workers + the same.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice

import numpy as np

from engine.training.data.stream import RawSample, Step, Walk
from engine.training.data.tally import BadSample, PassedOver, Tally
from engine.training.types import Clip, Position, seed_from

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """Who reads."""

    rank: int
    """Of this process."""
    ranks: int
    """Processes."""
    workers: int
    """Readers of each process, at least 1."""

    @property
    def readers(self) -> int:
        """Of all processes."""
        return self.ranks * self.workers

    def reader(self, worker: int) -> int:
        """Number of one of this process's readers."""
        return self.rank * self.workers + worker


@dataclass(frozen=True)
class Start:
    """Where a walk goes on."""

    epoch: int = 0
    """The pass."""
    skip: int = 0
    """Samples of it that are behind."""
    slots: int = 0
    """Sound samples after these that other ranks learned from."""


@dataclass(frozen=True)
class Kind:
    """What samples of one kind need: orbits, or pictures."""

    look: Callable[[RawSample], None]
    """Raises BadSample or PassedOver for what shows without decoding."""
    make: Callable[[RawSample, Position, int], Clip]
    """Sample, position, turn -> clip. Raises BadSample."""


class Dealer:
    """Micro-batches of clips of one kind for one reader."""

    def __init__(
        self, walk: Walk, kind: Kind, layout: Layout, *, batch_size: int, worker: int, reader: int, shared: bool,
        endless: bool, start: Start, tally: Tally,
    ) -> None:  # fmt: skip
        """Read nothing yet; see the module for what is dealt how."""
        self._kind, self._layout, self._shared, self._endless, self._tally = kind, layout, shared, endless, tally
        self._batch_size, self._worker, self._start = batch_size, worker, start
        self._here = Position(reader, 0, 0, ranks=layout.ranks, workers=layout.workers)
        steps = walk.steps(start.epoch, start.skip) if endless else walk.one_pass(0)
        self._sound = islice(self._sound_steps(steps), start.slots, None)
        self._ahead: deque[Step] = deque()
        self._round = 0

    def clips(self, round_number: int, batch: int) -> list[Clip]:
        """Return the clips of a round (counted from the start, rising), which is this rank's micro-batch `batch`.

        Without end: as many as a batch has. In one pass: fewer at its end or beside bad samples, none behind it.
        """
        if not self._shared:
            return self._own(batch)
        a_round = self._layout.ranks * self._batch_size
        while self._round < round_number:
            self._let_go(a_round)
            self._round += 1
        self._look_ahead(a_round)
        slots = range(self._layout.rank, min(a_round, len(self._ahead)), self._layout.ranks)
        made = [clip for slot in slots if (clip := self._in_slot(slot, batch)) is not None]
        self._let_go(a_round)
        self._round += 1
        return made

    @property
    def exhausted(self) -> bool:
        """Whether nothing is left; never, without end."""
        return not self._look_ahead(1)

    def _own(self, batch: int) -> list[Clip]:
        made: list[Clip] = []
        while len(made) < self._batch_size:
            step = next(self._sound)
            try:
                made.append(self._clip(step, step, batch))
            except BadSample as problem:
                self._tally.bad(problem)
                continue
            self._tally.good()
        return made

    def _in_slot(self, slot: int, batch: int) -> Clip | None:
        """Decode a slot's sample. A bad one, which only its owner finds out about, is replaced by the next good one, so
        that the others' samples stay where they are; in one pass it leaves a gap."""
        place = slot
        while self._look_ahead(place + 1):
            try:
                clip = self._clip(self._ahead[place], self._ahead[slot], batch)
            except BadSample as problem:
                self._tally.bad(problem, own=place == slot)
                if not self._endless:
                    return None
                place += 1
                continue
            if place == slot:
                self._tally.good()
            return clip
        return None

    def _clip(self, step: Step, slot: Step, batch: int) -> Clip:
        position = replace(self._here, epoch=slot.epoch, index=slot.index, batch=batch)
        return self._kind.make(step.raw, position, step.turn)

    def _look_ahead(self, count: int) -> bool:
        """Whether so many sound samples are at hand."""
        while len(self._ahead) < count:
            step = next(self._sound, None)
            if step is None:
                return False
            self._ahead.append(step)
        return True

    def _let_go(self, count: int) -> None:
        self._look_ahead(count)
        for _ in range(min(count, len(self._ahead))):
            self._ahead.popleft()
            self._tally.saw_good()

    def _sound_steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        """Samples that look good. Where shards are shared, each bad one is told by one reader only."""
        found, first = False, self._start.epoch
        for step in steps:
            if not found and step.epoch >= first + 2:  # a whole pass lies behind
                self._tally.passed()
            own = not self._shared or step.index % self._layout.readers == self._layout.reader(self._worker)
            try:
                self._kind.look(step.raw)
            except PassedOver as reason:
                self._tally.passed_over(reason, own=own)
            except BadSample as problem:
                self._tally.bad(problem, own=own)
            else:
                found = True
                yield step
        if not found:
            self._tally.passed()


# ---------------------------------------------------------------- orbits and pictures
class Mixture:
    """Which micro-batches are of 2D pictures: an exact share of them, the same for all ranks, in no regular beat (with
    one, the same worker would always get them)."""

    def __init__(self, share: float, seed: int) -> None:
        """share: of the micro-batches, 0 to 1."""
        exact = Fraction(share).limit_denominator(1000)
        self._pictures, self._block, self._seed = exact.numerator, exact.denominator, seed

    def is_picture(self, batch: int) -> bool:
        """Whether a micro-batch is of pictures."""
        return bool(self._in_block(batch // self._block)[batch % self._block])

    def pictures_before(self, batch: int) -> int:
        """Micro-batches of pictures before this one."""
        blocks, rest = divmod(batch, self._block)
        return blocks * self._pictures + int(self._in_block(blocks)[:rest].sum())

    def _in_block(self, block: int) -> np.ndarray:
        generator = np.random.default_rng(seed_from(self._seed, "mixture", block))
        return generator.permutation(self._block) < self._pictures


# ---------------------------------------------------------------- going on
def next_batch(start_after: Mapping[int, Position]) -> int:
    """Return the number of a rank's first micro-batch behind these."""
    return max((position.batch + 1 for position in start_after.values()), default=0)


def shares_shards(shards: int, readers: int) -> bool:
    """Whether readers walk all shards together, as there are too few for one each."""
    return readers == 1 or shards < readers


def resumed(positions: Sequence[Position], layout: Layout, *, worker: int, first_reader: int, shards: int) -> Start:
    """Return where a reader's walk goes on behind positions of its kind of samples.

    With the layout of before: exactly. With another one: exactly where shards were and are shared, else at the same
    share of the pass.

    Args:
        positions: last ones learned from, of all readers or of this rank's only.
        layout: of now.
        worker: which of this rank's readers.
        first_reader: number of the first reader of this kind.
        shards: how many there are.
    """
    if not positions:
        return Start()
    known = positions[0]
    readers = known.ranks * known.workers or layout.readers
    was_shared, is_shared = shares_shards(shards, readers), shares_shards(shards, layout.readers)
    last = max(positions, key=lambda position: (position.epoch, position.index))
    if was_shared and is_shared:
        ranks = {(position.reader - first_reader) // layout.workers for position in positions}
        only_own = not changed(positions, layout) and ranks == {layout.rank}
        return Start(last.epoch, last.index + 1, layout.ranks - 1 - layout.rank if only_own else 0)
    if not changed(positions, layout):
        own = next((p for p in positions if p.reader == first_reader + layout.reader(worker)), None)
        return Start() if own is None else Start(own.epoch, own.index + 1)
    epoch = min(position.epoch for position in positions)
    known_ones = [position.index + 1 for position in positions if position.epoch == epoch]
    done = last.index + 1 if was_shared else readers * sum(known_ones) / len(known_ones)
    epoch = last.epoch if was_shared else epoch
    return Start(epoch, round(done if is_shared else done / layout.readers))


def changed(positions: Sequence[Position], layout: Layout) -> bool:
    """Whether these were read by other processes or workers."""
    return any((p.ranks, p.workers) not in ((0, 0), (layout.ranks, layout.workers)) for p in positions)
