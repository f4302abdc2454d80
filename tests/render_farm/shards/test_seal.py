"""Sealing: same input, same bytes, whatever was left by a crash; receipts give every byte back."""

import hashlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.errors import OrbitError
from engine.files import iter_shard, read_orbit
from render_farm.errors import RunError
from render_farm.records import ObjectRecord, Refusal
from render_farm.shards import (
    is_sealed,
    list_receipts,
    open_output,
    read_parts,
    read_receipt,
    read_sample,
    run_context,
    seal_shard,
)
from render_farm.shards import seal as seal_module
from render_farm.shards.receipts import decode_receipt, encode_receipt
from tests.render_farm.staged import SPEC, VERSIONS, Ball, seal

FAILED = Refusal("timeout", "no picture for 300 s", "rendering view 3", "...")
BALLS = (Ball("b-2"), Ball("a_1"), Ball("c", refusal=FAILED))
CONTEXT = run_context(SPEC, VERSIONS)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_input_same_bytes_in_any_order(tmp_path: Path) -> None:
    seal(open_output(tmp_path / "one"), tmp_path / "staging", *BALLS)
    seal(open_output(tmp_path / "two"), tmp_path / "elsewhere", *reversed(BALLS))
    found = content(tmp_path / "one")
    assert sorted(found) == ["receipts/000-000000.json", "shards/000-000000.tar"]
    assert content(tmp_path / "two") == found


def test_a_receipt_says_what_the_tar_holds(tmp_path: Path) -> None:
    output = open_output(tmp_path)
    (sealed,) = seal(output, tmp_path / "staging", *BALLS)
    receipt = read_receipt(output, "000-000000")
    assert receipt == sealed
    tar = (tmp_path / "shards" / "000-000000.tar").read_bytes()
    assert (receipt.bytes, receipt.sha256) == (len(tar), hashlib.sha256(tar).hexdigest())
    assert [record.uid for record in receipt.records] == ["a_1", "b-2", "c"]
    assert receipt.records[2].refusal == FAILED
    assert [s.name for s in receipt.samples] == ["a_1.condition", "a_1.ring24", "b-2.condition", "b-2.ring24"]
    with tarfile.open(tmp_path / "shards" / "000-000000.tar") as file:
        members = {info.name: (info.offset_data, info.size) for info in file}
    assert {m.name: (m.offset, m.size) for s in receipt.samples for m in s.members} == members
    assert receipt.context["spec_digest"] == SPEC.digest
    assert list_receipts(output) == ("000-000000",)
    rgba = receipt.samples[1].member("rgba", 2)
    assert tar[rgba.offset : rgba.offset + rgba.size] == read_parts(output, receipt, receipt.samples[1])[rgba.name]


def test_samples_are_read_out_of_the_middle(tmp_path: Path) -> None:
    output = open_output(tmp_path)
    (receipt,) = seal(output, tmp_path / "staging", *BALLS)
    for streamed, sample in zip(iter_shard(tmp_path / "shards" / "000-000000.tar"), receipt.samples, strict=True):
        picked = read_sample(output, receipt, sample)
        staged = read_orbit(tmp_path / "staging" / "000-000000" / sample.uid / f"{sample.name}.json")
        for name in ("rgba", "depth_m", "normal", "camera_normal", "albedo", "material"):
            assert np.array_equal(getattr(picked, name), getattr(streamed, name)), name
            assert np.array_equal(getattr(picked, name), getattr(staged, name)), name
        assert np.array_equal(picked.orbit.T_world_camera, staged.orbit.T_world_camera)


def test_webdataset_reads_one_key_an_object(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    seal(open_output(tmp_path), tmp_path / "staging", *BALLS)
    samples = list(webdataset.WebDataset(str(tmp_path / "shards" / "000-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["a_1", "b-2"]
    assert {"ring24.json", "condition.json", "ring24.camera_normal_02.webp", "condition.rgba_01.webp"} <= set(
        samples[0]
    )


def test_a_shard_without_success_has_no_tar(tmp_path: Path) -> None:
    output = open_output(tmp_path)
    output.put_bytes("shards/000-000000.tar", b"of an attempt that was cut off")
    (receipt,) = seal(output, tmp_path / "staging", Ball("c", refusal=FAILED))
    assert (receipt.tar, receipt.sha256, receipt.bytes, receipt.samples) == (None, None, 0, ())
    assert output.list("shards") == ()
    assert read_receipt(output, "000-000000") == receipt


@pytest.mark.parametrize("cut", ["before the tar", "within the tar", "before the receipt", "within the receipt"])
def test_a_crash_at_any_point_is_made_good(tmp_path: Path, monkeypatch, cut: str) -> None:
    reference = tmp_path / "reference"
    seal(open_output(reference), tmp_path / "staging", *BALLS)
    output = open_output(tmp_path / "out")
    if cut == "within the tar":  # what a killed writer leaves
        output.put_bytes("shards/000-000000.tar.0011.partial", b"half")
    if cut == "within the receipt":
        output.put_bytes("receipts/000-000000.json.0011.partial", b"half")
    name = {"before the tar": "write_shard", "before the receipt": "replace"}.get(cut)
    if name is not None:
        with monkeypatch.context() as patch:
            patch.setattr(f"render_farm.shards.seal.{name}", lambda *a, **k: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                seal(output, tmp_path / "staging", *BALLS)
    assert not is_sealed(output, "000-000000")
    assert list_receipts(output) == ()
    seal(output, tmp_path / "staging", *BALLS)
    assert content(tmp_path / "out") == content(reference)


def test_a_tar_without_receipt_is_written_again(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    seal(output, tmp_path / "staging", *BALLS)
    whole = content(tmp_path / "out")
    (tmp_path / "out" / "receipts" / "000-000000.json").unlink()
    (tmp_path / "out" / "shards" / "000-000000.tar").write_bytes(b"damaged meanwhile")
    seal(output, tmp_path / "staging", *BALLS)
    assert content(tmp_path / "out") == whole


def test_a_sealed_shard_never_changes(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    (receipt,) = seal(output, tmp_path / "staging", *BALLS)
    before = content(tmp_path / "out")
    assert seal(output, tmp_path / "staging", *BALLS) == [receipt]
    with pytest.raises(RunError, match=r"000-000000.json: shard 000-000000 is sealed with other records, .* new batch"):
        seal(output, tmp_path / "staging", *BALLS[:2])
    assert content(tmp_path / "out") == before
    (tmp_path / "out" / "shards" / "000-000000.tar").write_bytes(b"cut")
    with pytest.raises(RunError, match=r"must have \d+ bytes as its receipt says, found 3"):
        seal(output, tmp_path / "staging", *BALLS)


def test_a_process_that_was_thought_dead_does_not_overwrite(tmp_path: Path, monkeypatch) -> None:
    output = open_output(tmp_path / "out")
    index, before = seal_module._index, {}
    monkeypatch.setattr(type(output), "clear_partials", lambda self, name: None)  # as between two machines and a store

    def slow(path: Path):
        with monkeypatch.context() as patch:
            patch.setattr(seal_module, "_index", index)
            seal(output, tmp_path / "other", Ball("b-2", colour=(1, 2, 3)), *BALLS[1:])  # the other one comes first
        before.update(content(tmp_path / "out"))
        return index(path)

    monkeypatch.setattr(seal_module, "_index", slow)
    with pytest.raises(RunError, match="another process has sealed it meanwhile"):
        seal(output, tmp_path / "staging", *BALLS)
    after = content(tmp_path / "out")
    assert {name: data for name, data in after.items() if "partial" not in name} == {
        name: data for name, data in before.items() if "partial" not in name
    }


def broken(record: ObjectRecord, **changes) -> ObjectRecord:
    return replace(record, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": "000-000009"}, "the record of apple belongs to shard 000-000009"),
        ({"outcome": "failed"}, "the record of apple says failed, but not why"),
        ({"orbits": ()}, "apple is done, but has no staged folder with orbits"),
        ({"orbits": ("ring99",)}, r"apple\.ring99\.json is missing; its record lists the orbit ring99"),
        ({"facts": {"scale": float("nan")}}, "holds what JSON cannot"),
        ({"facts": {"path": object()}}, "holds what JSON cannot"),
    ],
)
def test_records_that_do_not_fit_are_refused(tmp_path: Path, changes, message: str) -> None:
    ball, output = Ball("apple"), open_output(tmp_path / "out")
    staged = {"apple": ball.stage(tmp_path / "staging")}
    with pytest.raises(RunError, match=message):
        seal_shard(output, ball.shard, [broken(ball.record(), **changes)], staged, context=CONTEXT)
    assert content(tmp_path / "out") == {}


def test_other_nonsense_is_refused(tmp_path: Path) -> None:
    ball, output = Ball("apple"), open_output(tmp_path / "out")
    staged = {"apple": ball.stage(tmp_path / "staging")}
    record = ball.record()
    with pytest.raises(RunError, match="must be named BATCH-NUMBER such as 000-000012"):
        seal_shard(output, "shard-7", [record], staged, context=CONTEXT)
    with pytest.raises(RunError, match="needs one record for each object, got 2 of 1 objects"):
        seal_shard(output, ball.shard, [record, record], staged, context=CONTEXT)
    (staged["apple"] / "apple.ring24.rgba_01.webp").write_bytes(b"cut off")
    with pytest.raises(OrbitError, match=r"apple\.ring24\.rgba_01\.webp is truncated"):
        seal_shard(output, ball.shard, [record], staged, context=CONTEXT)
    assert content(tmp_path / "out") == {}


def test_any_changed_bit_of_a_receipt_shows(tmp_path: Path) -> None:
    (receipt,) = seal(open_output(tmp_path), tmp_path / "staging", Ball("a"), Ball("ü".encode().hex()))
    # escapes and exponents are what JSON itself would read the same in another spelling
    context = {"texts": "Blüte\u2028", "numbers": [1e300, 1e-9, 0.1]}
    small = replace(receipt, context=context, samples=())
    data = encode_receipt(small)
    assert decode_receipt(data, "r") == small
    for index in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[index] ^= 1 << bit
            with pytest.raises(RunError, match=r"^r: is damaged"):
                decode_receipt(bytes(changed), "r")
    for size in range(0, len(data), 7):
        with pytest.raises(RunError, match=r"^r: is damaged"):
            decode_receipt(data[:size], "r")


def test_a_receipt_of_another_shard_or_format_is_refused(tmp_path: Path) -> None:
    output = open_output(tmp_path)
    seal(output, tmp_path / "staging", Ball("a"))
    data = output.get("receipts/000-000000.json")
    output.put_bytes("receipts/000-000001.json", data)
    with pytest.raises(RunError, match="must be the receipt of shard 000-000001, found that of 000-000000"):
        read_receipt(output, "000-000001")
    from render_farm.shards import digested

    document = json.loads(data) | {"format": "receipt/9"}
    del document[digested.DIGEST]
    with pytest.raises(RunError, match="r: format must be 'receipt/1', found 'receipt/9'"):
        decode_receipt(digested.encode(document, "r"), "r")
