"""Pictures that look alike, among a million: each hash with the first leader that is near.

    hashes, in order -> blocks -> candidates: leaders that share a band of bits -> bits that differ -> leader of each

Not all are compared, only those that share one of BANDS bands of bits. That finds every leader that differs in fewer
bits than there are bands (pigeonhole), 95 of 100 that differ in 32 of 252, 3 of 5 at the limit of 48. Bits of one band
are not independent: real pictures have ten times the candidates that random bits would have, four thousand for each of
800,000. So they are counted by numpy, a block at a time, without a line of Python for each.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int, UInt16, UInt64

from render_farm.checks.hashes import BITS

BANDS = 18
"""Of 14 bits."""
WORDS = -(-BITS // 64)
FIRST_BLOCK, BLOCK = 256, 16384
"""Hashes at a time. Blocks grow: a crowd of lookalikes has its leader after the first, and is not compared in itself."""
PAIRS = 1 << 17
"""Compared at a time: their words stay in the processor's cache."""
Hashes = UInt64[np.ndarray, "all words"]
Keys = UInt16[np.ndarray, "bands all"]


def near_leaders(hashes: Sequence[str], near_bits: int) -> list[int]:
    """Return the index of each hash's leader: the first leader that is near, or itself, which makes it one.

    Args:
        hashes: hexadecimal, all different; at most BITS bits.
        near_bits: of two that are near, at most so many bits differ.
    """
    words = _words(hashes)
    keys = _keys(words)
    leader = np.arange(len(hashes))
    start, size = 0, FIRST_BLOCK
    while start < len(hashes):
        block = np.arange(start, min(start + size, len(hashes)))
        leaders = np.flatnonzero(leader[:start] == np.arange(start))
        for one, other in _near(words, keys, block, leaders, near_bits):
            np.minimum.at(leader, one, other)
        _lead_among(words, keys, block[leader[block] == block], near_bits, leader)
        start, size = start + size, min(2 * size, BLOCK)
    return [int(index) for index in leader]


def _lead_among(
    words: Hashes, keys: Keys, block: Int[np.ndarray, " n"], near_bits: int, leader: Int[np.ndarray, " all"]
) -> None:
    """Choose leaders in a block that none of the earlier ones is near to, one hash after the other."""
    earlier: dict[int, set[int]] = {}
    for one, other in _near(words, keys, block, block, near_bits):
        for later, before in zip(one[other < one].tolist(), other[other < one].tolist(), strict=True):
            earlier.setdefault(later, set()).add(before)
    for later in sorted(earlier):
        leader[later] = min((before for before in earlier[later] if leader[before] == before), default=later)


def _near(
    words: Hashes, keys: Keys, ones: Int[np.ndarray, " a"], others: Int[np.ndarray, " b"], near_bits: int
) -> Iterator[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]]:
    """Pairs of which the bands of one and the other meet and few bits differ; some come more than once."""
    for key in keys:
        order = others[np.argsort(key[others], kind="stable")]
        low = np.searchsorted(key[order], key[ones], "left")
        counts = np.searchsorted(key[order], key[ones], "right") - low
        ends = np.cumsum(counts)
        start = 0
        while start < len(ones):
            done = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + PAIRS, "right")))
            part = counts[start:stop]
            one = np.repeat(ones[start:stop], part)
            place = np.arange(len(one)) - np.repeat(ends[start:stop] - part - done, part)
            other = order[place + np.repeat(low[start:stop], part)]
            near = _are_near(words, one, other, near_bits)
            yield one[near], other[near]
            start = stop


def _are_near(
    words: Hashes, one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"], near_bits: int
) -> Bool[np.ndarray, " n"]:
    """Half of the bits tell most pairs apart; the others are looked at where they do not."""
    half = WORDS // 2
    differ = sum((_ones(words[one, i] ^ words[other, i]) for i in range(half)), np.zeros(len(one), np.uint64))
    near = differ <= near_bits
    left = np.flatnonzero(near)
    rest = sum((_ones(words[one[left], i] ^ words[other[left], i]) for i in range(half, WORDS)), differ[left])
    near[left] = rest <= near_bits
    return near


def _ones(bits: UInt64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Bits that are set, of each number (Warren, Hacker's Delight, 5-1)."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (bits * np.uint64(0x0101010101010101)) >> np.uint64(56)


def _words(hashes: Sequence[str]) -> Hashes:
    """Most significant word first, in columns that lie together."""
    data = bytes.fromhex("".join(text.zfill(16 * WORDS) for text in hashes))
    return np.asfortranarray(np.frombuffer(data, ">u8").reshape(-1, WORDS).astype(np.uint64))


def _keys(words: Hashes) -> Keys:
    """The bits of each band, of each hash."""
    bits = np.unpackbits(np.ascontiguousarray(words[:, ::-1]).astype("<u8").view(np.uint8), axis=1, bitorder="little")
    edges = [BITS * band // BANDS for band in range(BANDS + 1)]
    keys = np.zeros((BANDS, len(words)), np.uint16)
    for band in range(BANDS):
        for place, bit in enumerate(range(edges[band], edges[band + 1])):
            keys[band] |= bits[:, bit].astype(np.uint16) << np.uint16(place)
    return keys
