"""Which objects are the same: equal files, equal meshes, pictures that look alike. And splits that keep them together.

identities -> equal sha256, equal mesh, near pictures -> clusters -> train, val or test by the cluster's name
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from render_farm.checks.hashes import NEAR_BITS
from render_farm.shards.near import near_leaders

SPLITS = ("train", "val", "test")
FRACTIONS = (0.9, 0.05, 0.05)
"""Shares of train, val and test."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What an object is recognised by; empty texts say nothing."""

    uid: str
    """Its name."""
    sha256: str
    """Of its file."""
    mesh_hash: str
    """Of its triangles."""
    picture_hash: str
    """checks.picture_hash: hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Kinship:
    """An object's place among its likes."""

    cluster: str
    """The smallest uid of all that are the same."""
    duplicate_of: str | None
    """The cluster's name; None for the object that it is named after."""
    duplicate_by: str | None
    """file, mesh or picture: the surest reason that ties it to another of its cluster."""


def find_kin(identities: Iterable[Identity], near_bits: int = NEAR_BITS) -> dict[str, Kinship]:
    """Return every object's cluster.

    Equal files and equal meshes are passed on: a like b and b like c puts all three in one. Near pictures are not: an
    object joins the first one, by uid, that no earlier one has drawn in and that is near enough. Passed on, single
    resemblances among many objects would tie most of them together.

    Args:
        identities: one for each uid.
        near_bits: picture hashes that differ in at most so many bits are alike.
    """
    ordered = sorted(identities, key=lambda identity: identity.uid)
    parent = {identity.uid: identity.uid for identity in ordered}
    reasons: dict[str, str] = {}
    for reason, pairs in (
        ("file", _chains((identity.sha256, identity.uid) for identity in ordered)),
        ("mesh", _chains((identity.mesh_hash, identity.uid) for identity in ordered)),
        ("picture", _near_pictures(ordered, near_bits)),
    ):
        for one, other in pairs:
            for uid in (one, other):
                reasons.setdefault(uid, reason)
            first, second = sorted((_root(parent, one), _root(parent, other)))
            parent[second] = first  # the smallest uid is the root
    kin = {}
    for uid in parent:
        cluster = _root(parent, uid)
        known = (None, None) if cluster == uid else (cluster, reasons[uid])
        kin[uid] = Kinship(cluster, *known)
    return kin


def split_of(cluster: str, fractions: tuple[float, float, float] = FRACTIONS) -> str:
    """Return train, val or test: always the same for a cluster, whatever else is in the dataset."""
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions must be three shares that add up to 1, got {fractions}")
    share = int.from_bytes(hashlib.blake2b(cluster.encode(), digest_size=8).digest(), "big") / 2**64
    if share < fractions[0]:
        return SPLITS[0]
    return SPLITS[1] if share < fractions[0] + fractions[1] else SPLITS[2]


def _root(parent: dict[str, str], uid: str) -> str:
    while parent[uid] != uid:
        parent[uid] = parent[parent[uid]]
        uid = parent[uid]
    return uid


def _chains(named: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The first object of each value with every other: as good as every pair."""
    first: dict[str, str] = {}
    for value, uid in named:
        if not value:
            continue
        if value in first:
            yield first[value], uid
        else:
            first[value] = uid


def _near_pictures(ordered: Iterable[Identity], near_bits: int) -> Iterator[tuple[str, str]]:
    """Each object with the first leader that is near; without one it becomes a leader itself."""
    first: dict[str, str] = {}
    for identity in ordered:
        value = identity.picture_hash
        if value and first.setdefault(value, identity.uid) != identity.uid:
            yield first[value], identity.uid
    uids = list(first.values())
    for index, leader in enumerate(near_leaders(list(first), near_bits)):
        if leader != index:
            yield uids[leader], uids[index]
