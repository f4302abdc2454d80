"""Names of files are unique, stable and may be parts of file names."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from render_farm.assets import check_uid
from render_farm.catalogue.entry import plain_text, unique_uids

places = st.lists(st.from_regex(r"([a-b _.]{1,3}/){0,2}[ab_ é]{1,3}\.(glb|obj|FBX)", fullmatch=True), unique=True)


def test_names() -> None:
    found = unique_uids(["chair.glb", "cars/red car.v2.fbx", "Стул.obj", "a/b.glb"])
    assert found == ["chair", "cars_red_car_v2", "object", "a_b"]


def test_collisions_keep_the_name_spelt_so() -> None:
    exact, folder, space = unique_uids(["a_b.obj", "a/b.glb", "a b.glb"])
    assert exact == "a_b"
    assert folder.startswith("a_b_")
    assert space.startswith("a_b_")
    assert len({exact, folder, space}) == 3
    # without an exact one all are told apart, so that one that comes later does not take a name away
    assert unique_uids(["a/b.glb", "a b.glb"]) == [folder, space]
    glb, obj = unique_uids(["a.glb", "a.obj"])
    assert (glb, obj.startswith("a_")) == ("a", True)


@given(places, st.randoms(use_true_random=False))
def test_unique_and_of_any_order(names: list[str], rng: random.Random) -> None:
    found = dict(zip(names, unique_uids(names), strict=True))
    assert len(set(found.values())) == len(names)
    assert all(check_uid(uid) is None for uid in found.values())
    shuffled = names.copy()
    rng.shuffle(shuffled)
    assert dict(zip(shuffled, unique_uids(shuffled), strict=True)) == found


def test_check_uid() -> None:
    assert check_uid("a-B_9") is None
    assert check_uid("a.b") == "a uid must hold letters, digits, '_' and '-' only, got 'a.b'"
    assert check_uid("") == "a uid must hold letters, digits, '_' and '-' only, got ''"
    assert check_uid("a" * 120) is None
    assert check_uid("a" * 121) == f"a uid must have at most 120 characters, got 121: {'a' * 121!r}"


def test_deep_folders_make_no_uid_that_no_file_can_have() -> None:
    places = ["/".join(["some-folder"] * 20 + [name]) for name in ("a.glb", "b.glb")]
    uids = unique_uids([*places, "a.glb"])
    assert [len(uid) for uid in uids] == [120, 120, 1]
    assert len(set(uids)) == 3
    assert unique_uids(places[::-1]) == uids[1::-1]


def test_paths_that_are_no_files() -> None:
    """A list may hold anything; what is not there is refused later, by name."""
    assert len(set(unique_uids([".", "/", "..", "a/.."]))) == 4


@pytest.mark.parametrize(
    ("text", "stored"),
    [("Стул 🪑", "Стул 🪑"), ("half \ud83e", "half \ufffd"), ("\ud83e\ude91", "🪑"), ("\ufeffa", "\ufeffa"),
     ("b\udcff.glb", "b\ufffd.glb"), ("", "")],
)  # fmt: skip
def test_plain_text(text: str, stored: str) -> None:
    assert plain_text(text) == stored
    assert stored.encode().decode() == stored
