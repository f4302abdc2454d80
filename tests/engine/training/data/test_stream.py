"""Reading: WebDataset's samples, in an order that the seed alone decides; damage is told apart and named."""

import http.server
import threading
from collections import Counter
from functools import partial
from itertools import islice
from pathlib import Path

import fsspec
import numpy as np
import pytest
import webdataset

from engine.errors import TrainingError
from engine.training.data import stream
from engine.training.data.clips import OrbitMembers
from engine.training.data.sources import find_shards
from engine.training.data.stream import Part, RawSample, Walk, read_shard, shuffled
from tests.engine.training.small_orbits import small_shards, write_tar

ORBITS = OrbitMembers("ring6", depth=False)


def numbers(samples) -> list[int]:
    return [int(sample.name[7:10]) for sample in samples]


def walked(shards, count: int, *, seed: int = 0, **options) -> list[tuple[int, int]]:
    return [(s.epoch, int(s.raw.name[7:10])) for s in islice(Walk(shards, ORBITS, seed, **options).steps(), count)]


# ---------------------------------------------------------------- one shard
def test_samples_are_what_webdataset_reads(tmp_path: Path) -> None:
    (path,) = small_shards(tmp_path, [3], depth=True)
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False))
    ours = list(read_shard(str(path), OrbitMembers("*", depth=True)))
    assert [sample.name for sample in ours] == [f"{sample['__key__']}.ring6" for sample in theirs]
    for our, their in zip(ours, theirs, strict=True):
        found = {f"{their['__key__']}.{part}": data for part, data in their.items() if not part.startswith("__")}
        assert our.parts == found
        assert our.problem is None


def test_only_what_is_needed_is_kept(tmp_path: Path) -> None:
    (path,) = small_shards(tmp_path, [1], depth=True)
    (sample,) = read_shard(str(path), ORBITS)
    assert {name.split(".")[2][:5] for name in sample.parts} == {"json", "rgba_"}
    assert not [s for s in read_shard(str(path), OrbitMembers("ring24", depth=False)) if not s.problem]


@pytest.mark.parametrize("keep", [0.3, 0.5, 0.85])
def test_a_cut_off_shard_gives_its_whole_samples_first(tmp_path: Path, keep: float) -> None:
    (path,) = small_shards(tmp_path, [5])
    whole = {sample.name: sample.parts for sample in read_shard(str(path), ORBITS)}
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    *good, last = read_shard(str(path), ORBITS)
    assert len(good) == int(keep * 5) or len(good) == int(keep * 5) - 1
    assert all(sample.parts == whole[sample.name] for sample in good)
    assert (last.name, last.problem[0]) == (str(path), "cut off")


def test_a_damaged_header_is_no_end(tmp_path: Path) -> None:
    (path,) = small_shards(tmp_path, [3])
    data = bytearray(path.read_bytes())
    place = data.index(b"object-001.ring6.rgba_02.webp")
    data[place : place + 4] = b"\xff\xff\xff\xff"  # its checksum is wrong now
    path.write_bytes(data)
    *good, last = read_shard(str(path), ORBITS)
    assert numbers(good) == [0]
    assert last.problem[0] == "cut off"
    assert "header" in last.problem[1]


def test_a_missing_end_marker_is_noticed(tmp_path: Path) -> None:
    (path,) = small_shards(tmp_path, [2])
    path.write_bytes(path.read_bytes().rstrip(b"\0").ljust(512 * 3, b"\0"))
    assert [sample.problem[0] for sample in read_shard(str(path), ORBITS) if sample.problem] == ["cut off"]


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "empty"), (b"\0" * 10240, "empty"), (b"no tar at all" * 100, "cut off"), (None, "cannot be read")]
)  # fmt: skip
def test_what_is_no_shard(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "a.tar"
    if content is not None:
        path.write_bytes(content)
    (sample,) = read_shard(str(path), ORBITS)
    assert (sample.name, sample.problem[0]) == (str(path), reason)


def test_shards_come_through_memory_and_http(tmp_path: Path) -> None:
    (path,) = small_shards(tmp_path, [4])
    fsspec.filesystem("memory").pipe("/stream/a.tar", path.read_bytes())
    expected = list(read_shard(str(path), ORBITS))
    with served(tmp_path) as address:
        for url in ("memory://stream/a.tar", f"{address}/{path.name}"):
            assert find_shards([url]).urls == (url,)
            assert [s.parts for s in read_shard(url, ORBITS)] == [s.parts for s in expected]
        (missing,) = read_shard(f"{address}/none.tar", ORBITS)
    assert missing.problem[0] == "cannot be read"


class served:
    """A folder on the loopback."""

    def __init__(self, folder: Path) -> None:
        handler = partial(QuietHandler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_a_broken_connection_is_taken_up_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path,) = small_shards(tmp_path, [4])
    fsspec.filesystem("memory").pipe("/broken/a.tar", path.read_bytes())
    opened, real = [], stream._open

    def flaky(url: str):
        opened.append(url)
        return Breaks(path.read_bytes()[: path.stat().st_size // 2]) if len(opened) == 1 else real(url)

    monkeypatch.setattr(stream, "_open", flaky)
    monkeypatch.setattr(stream.time, "sleep", lambda seconds: None)
    assert numbers(read_shard("memory://broken/a.tar", ORBITS)) == [0, 1, 2, 3]
    assert len(opened) == 2


class Breaks:
    """Gives half of a file, then the connection is reset."""

    def __init__(self, half: bytes) -> None:
        self.half = half

    def __enter__(self) -> "Breaks":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, size: int = -1, /) -> bytes:
        if not self.half:
            raise ConnectionResetError("reset by peer")
        half, self.half = self.half, b""
        return half


# ---------------------------------------------------------------- order
def test_each_pass_has_every_sample_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    shards = find_shards([str(path) for path in small_shards(tmp_path, [5, 4, 3])])
    order = walked(shards, 36)
    passes = [[number for epoch, number in order if epoch == e] for e in range(3)]
    assert all(sorted(one) == list(range(12)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    assert walked(shards, 36) == order
    assert walked(shards, 36, seed=1) != order
    assert [n for _, n in walked(shards, 12, order=True)] == list(range(12))


def test_going_on_from_anywhere(tmp_path: Path) -> None:
    shards = find_shards([str(path) for path in small_shards(tmp_path, [3, 2])])
    steps = list(islice(Walk(shards, ORBITS, 0).steps(), 15))
    for place in range(15):
        step = steps[place]
        rest = list(islice(Walk(shards, ORBITS, 0).steps(step.epoch, step.index), 15 - place))
        assert rest == steps[place:]


def test_readers_with_shards_of_their_own_share_a_pass_out(tmp_path: Path) -> None:
    shards = find_shards([str(path) for path in small_shards(tmp_path, [3, 2, 4, 1, 2])])
    for epoch in range(3):
        read = [
            {step.raw.name for step in Walk(shards, ORBITS, 0, part=Part(reader, 2)).one_pass(epoch)}
            for reader in (0, 1)
        ]
        assert not read[0] & read[1]
        assert len(read[0] | read[1]) == 12


def test_a_buffer_that_is_full_lets_samples_go_at_random(rng: np.random.Generator, monkeypatch) -> None:
    samples = [RawSample(f"object-{n:03d}", "", {"a": b"x" * 10}) for n in range(200)]
    whole = numbers(shuffled(iter(samples), rng))
    assert sorted(whole) == list(range(200))
    monkeypatch.setattr(stream, "BUFFER_BYTES", 200)  # twenty of them
    some = numbers(shuffled(iter(samples), rng))
    assert sorted(some) == list(range(200))
    assert some != sorted(some)
    assert all(number < place + 21 for place, number in enumerate(some))


# ---------------------------------------------------------------- mixtures
def test_shares_follow_weights_not_sizes(tmp_path: Path) -> None:
    large, small = small_shards(tmp_path, [20, 5])
    shards = find_shards([f"{large}@1", f"{small}@3"])
    order = walked(shards, 80)
    for count in (8, 40, 80):
        assert sum(number >= 20 for _, number in order[:count]) == pytest.approx(0.75 * count, abs=1)
    assert [epoch for epoch, _ in order] == sorted(epoch for epoch, _ in order)


def test_a_pass_of_a_mixture_has_every_sample_and_counts_the_turns(tmp_path: Path) -> None:
    large, small = small_shards(tmp_path, [12, 2])
    steps = list(Walk(find_shards([f"{large}@2", f"{small}@1"]), ORBITS, 0).one_pass(0))
    seen = Counter(step.raw.name[:10] for step in steps)
    assert all(seen[f"object-{n:03d}"] == 1 for n in range(12))
    assert [seen[f"object-{n:03d}"] for n in (12, 13)] == [3, 3]
    assert sorted(step.turn for step in steps if step.raw.name[:10] == "object-012") == [0, 1, 2]


def test_readers_of_a_mixture_with_few_shards_share_it_out(tmp_path: Path) -> None:
    *_, few = small_shards(tmp_path, [2, 2, 2, 4])
    shards = find_shards([f"{path}@1" for path in (f"{tmp_path}/orbits-00[0-2].tar", few)])
    read = [{s.raw.name for s in Walk(shards, ORBITS, 0, part=Part(reader, 2)).one_pass(0)} for reader in (0, 1)]
    assert len(read[0] | read[1]) == 10


# ---------------------------------------------------------------- nothing there
def test_other_orbits_are_named(tmp_path: Path) -> None:
    small_shards(tmp_path, [2, 1], views=4)
    with pytest.raises(TrainingError) as caught:
        walked(find_shards([str(tmp_path)]), 1)
    assert str(caught.value) == (
        f"{tmp_path}: shards hold ring4, the recipe takes ring6: name shards of ring6, or a recipe of ring4"
    )


def test_a_folder_of_several_orbits_gives_the_one_that_is_taken(tmp_path: Path) -> None:
    (first,) = small_shards(tmp_path, [3], views=4)
    first.rename(tmp_path / "ring4.tar")
    small_shards(tmp_path, [3])
    for part in (None, Part(0, 2), Part(1, 2)):
        assert len(walked(find_shards([str(tmp_path)]), 6, part=part)) == 6


def test_a_shard_without_orbits(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("readme.txt", b"nothing here")])
    with pytest.raises(TrainingError, match="holds no orbit/1 sample; seal orbits into shards with turntable-farm run"):
        walked(find_shards([str(tmp_path)]), 1)
