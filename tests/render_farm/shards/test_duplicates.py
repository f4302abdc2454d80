"""Clusters of the same objects against a plain search of all pairs, and splits by cluster."""

from collections import Counter

import numpy as np
import pytest

from render_farm.shards import Identity, Kinship, find_kin, split_of
from render_farm.shards.near import BANDS, FIRST_BLOCK, near_leaders


def plain_kin(identities: list[Identity], near_bits: int) -> dict[str, Kinship]:
    """The definition, word by word: all pairs, labels that spread until nothing changes."""
    ordered = sorted(identities, key=lambda identity: identity.uid)
    ties: list[tuple[str, str, str]] = []
    for a in ordered:
        for b in ordered:
            if a.uid < b.uid and a.sha256 and a.sha256 == b.sha256:
                ties.append(("file", a.uid, b.uid))
            if a.uid < b.uid and a.mesh_hash and a.mesh_hash == b.mesh_hash:
                ties.append(("mesh", a.uid, b.uid))
    leaders: list[Identity] = []
    for a in (identity for identity in ordered if identity.picture_hash):
        bits = int(a.picture_hash, 16)
        near = [b for b in leaders if bin(bits ^ int(b.picture_hash, 16)).count("1") <= near_bits]
        if near:
            ties.append(("picture", near[0].uid, a.uid))
        else:
            leaders.append(a)
    label = {identity.uid: identity.uid for identity in ordered}
    for _ in ordered:
        for _, one, other in ties:
            label[one] = label[other] = min(label[one], label[other])
    kin = {}
    for uid, cluster in label.items():
        why = [reason for reason, *pair in ties if uid in pair]
        best = next((reason for reason in ("file", "mesh", "picture") if reason in why), None)
        kin[uid] = Kinship(cluster, *((None, None) if uid == cluster else (cluster, best)))
    return kin


@pytest.mark.parametrize("near_bits", [0, 1, 4, 7])
@pytest.mark.parametrize("seed", range(5))
def test_it_finds_what_the_definition_says(seed: int, near_bits: int) -> None:
    rng = np.random.default_rng(seed)
    bases = [int(value) for value in rng.integers(0, 2**63, 25)]
    identities = []
    for index in rng.permutation(120):
        value = bases[rng.integers(len(bases))]
        for bit in rng.choice(64, rng.integers(0, 6), replace=False):
            value ^= 1 << int(bit)
        identities.append(
            Identity(
                f"o{index:03d}",
                rng.choice(["", f"f{rng.integers(60)}"]),
                rng.choice(["", "", f"m{rng.integers(60)}"]),
                rng.choice(["", f"{value:016x}"]),
            )
        )
    kin = find_kin(identities, near_bits)
    assert kin == plain_kin(identities, near_bits)
    assert kin == find_kin(identities[::-1], near_bits)  # the order does not matter


def test_the_surest_reason_is_named_and_empty_texts_say_nothing() -> None:
    kin = find_kin(
        [
            Identity("d", "x", "m", ""), Identity("a", "x", "m", "00"), Identity("b", "y", "m", ""),
            Identity("c", "z", "", "07"), Identity("e", "", "", ""), Identity("f", "", "", ""),
        ]
    )  # fmt: skip
    assert kin == {
        "a": Kinship("a", None, None), "b": Kinship("a", "a", "mesh"), "c": Kinship("a", "a", "picture"),
        "d": Kinship("a", "a", "file"), "e": Kinship("e", None, None), "f": Kinship("f", None, None),
    }  # fmt: skip


def test_resemblance_is_not_passed_on() -> None:
    """One bit after the other: without a limit, thousands of objects would end in one cluster."""
    chain = [Identity(f"o{index:02d}", "", "", f"{(1 << index) - 1:016x}") for index in range(12)]
    clusters = Counter(kinship.cluster for kinship in find_kin(chain, 3).values())
    assert clusters == {"o00": 4, "o04": 4, "o08": 4}


def test_splits_have_their_shares_and_do_not_depend_on_others() -> None:
    counts = Counter(split_of(f"object-{index}", (0.8, 0.15, 0.05)) for index in range(20000))
    # three standard deviations of a share of 0.15 of 20000 are 0.0076
    assert counts["train"] / 20000 == pytest.approx(0.8, abs=0.0085)
    assert counts["val"] / 20000 == pytest.approx(0.15, abs=0.0076)
    assert counts["test"] / 20000 == pytest.approx(0.05, abs=0.0047)
    moved = [
        u for u in range(2000) if split_of(f"{u}", (0.8, 0.1, 0.1)) == "train" != split_of(f"{u}", (0.9, 0.05, 0.05))
    ]
    assert moved == []  # a larger share of train only adds to it
    with pytest.raises(ValueError, match="three shares that add up to 1"):
        split_of("a", (1.2, -0.1, -0.1))


@pytest.mark.slow
def test_a_crowd_is_told_apart_like_a_few() -> None:
    """As many as take several blocks, with lookalikes in and across them: leaders are those of the plain search."""
    rng = np.random.default_rng(7)
    bases = [int.from_bytes(rng.bytes(31), "big") for _ in range(150)]
    values: dict[int, None] = {}
    for _ in range(1800):
        value = bases[rng.integers(len(bases))]
        for bit in rng.choice(252, rng.integers(0, 17), replace=False):  # up to 32 between two: some are near, some not
            value ^= 1 << int(bit)
        values[value] = None
    leaders: list[int] = []
    expected = []
    for index, value in enumerate(values):
        near = [leader for leader in leaders if (list(values)[leader] ^ value).bit_count() < BANDS]
        expected.append(near[0] if near else index)
        leaders += [] if near else [index]
    # those that differ in fewer bits than there are bands are always found
    assert near_leaders([f"{value:063x}" for value in values], BANDS - 1) == expected
    assert len(values) > 4 * FIRST_BLOCK
    assert 150 < len(leaders) < len(values) / 2
