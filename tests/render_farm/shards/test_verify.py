"""Verification finds every flipped bit, every file too many or too few, and cameras that are another object's."""

import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.files import read_orbit, write_orbit
from render_farm.catalogue.batches import write_batch
from render_farm.shards import (
    Problem,
    build_manifest,
    list_receipts,
    open_output,
    read_receipt,
    run_context,
    seal_shard,
    verify,
)
from render_farm.shards.receipts import encode_receipt
from tests.render_farm.shards.conftest import BALLS, FAILED
from tests.render_farm.staged import SPEC, VERSIONS, Ball, seal

FLIPS = 200
FILES = ("shards/000-000000.tar", "shards/000-000001.tar", "shards/001-000000.tar", "receipts/000-000000.json",
         "receipts/000-000002.json", "receipts/001-000000.json", "manifest/manifest.json", "manifest/objects.parquet",
         "manifest/views.parquet", "manifest/failures.parquet")  # fmt: skip


def found(folder: Path, **options) -> list[tuple[str, str]]:
    return [(problem.kind, problem.name) for problem in verify(open_output(folder), **options)]


def test_nothing_is_wrong_with_what_was_sealed(sealed: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sealed.rglob("*")}
    calls: list[tuple[int, int]] = []
    assert verify(open_output(sealed), progress=lambda done, total: calls.append((done, total))) == []
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert verify(open_output(sealed), deep=False) == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sealed.rglob("*")} == before


def test_the_list_of_files_is_whole(sealed: Path) -> None:
    held = {str(path.relative_to(sealed)) for path in sealed.rglob("*") if path.is_file()}
    assert held == {*FILES, "receipts/000-000001.json"}


@pytest.mark.parametrize("flips", [2, pytest.param(FLIPS // len(FILES), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found(out: Path, name: str, flips: int) -> None:
    """200 flips over all kinds of files, each somewhere else, and each names the file it is in."""
    rng = np.random.default_rng(FILES.index(name))
    path, output = out / name, open_output(out)
    whole = path.read_bytes()
    for _ in range(flips):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        problems = verify(output)
        assert name in [problem.name for problem in problems]
        assert all("\n" not in str(problem) for problem in problems)
    path.write_bytes(whole)
    assert verify(output) == []


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_missing_or_cut_off_are_found(out: Path, name: str) -> None:
    path = out / name
    whole = path.read_bytes()
    path.unlink()
    kinds = {kind for kind, _ in found(out, deep=False)}
    if name.startswith("shards"):
        assert kinds == {"missing-tar"}
    elif name.startswith("receipts"):
        assert kinds == {"stale-manifest"} | (set() if "000-000002" in name else {"stray"})  # that one has no tar
    else:
        assert kinds == {"missing-manifest" if name.endswith("json") else "bad-manifest"}
    path.write_bytes(whole[:-1])
    assert name in [n for _, n in found(out, deep=False)]


def test_a_damaged_picture_is_named(out: Path) -> None:
    output = open_output(out)
    member = read_receipt(output, "000-000000").samples[1].member("normal", 1)
    path = out / "shards" / "000-000000.tar"
    data = bytearray(path.read_bytes())
    data[member.offset + 30] ^= 4
    path.write_bytes(data)
    problems = verify(output)
    assert [problem.kind for problem in problems] == ["bad-sample", "bad-tar"]
    assert problems[0].message == f"{path}: apple.ring24.normal_01.webp is not what was sealed; copy the shard again"
    assert "must have sha256 " in problems[1].message


def test_strays_are_found_and_partials_are_no_content(out: Path) -> None:
    for name in ("shards/000-000003.tar", "shards/notes.txt", "shards/000-000002.tar", "receipts/notes.json",
                 "manifest/old.parquet"):  # fmt: skip
        (out / name).write_bytes(b"stray")
    for name in ("shards/000-000004.tar.0011.partial", "receipts/000-000004.json.partial", "manifest/x.partial"):
        (out / name).write_bytes(b"half")
    assert found(out) == [
        ("stray", "manifest/old.parquet"), ("stray", "receipts/notes.json"), ("stray", "shards/000-000002.tar"),
        ("stray", "shards/000-000003.tar"), ("stray", "shards/notes.txt"),
    ]  # fmt: skip


def test_a_receipt_without_tar_and_a_tar_without_receipt(out: Path) -> None:
    (out / "shards" / "000-000000.tar").unlink()
    (out / "receipts" / "000-000001.json").unlink()
    assert found(out) == [
        ("stale-manifest", "manifest/manifest.json"), ("missing-tar", "shards/000-000000.tar"),
        ("stray", "shards/000-000001.tar"),
    ]  # fmt: skip


def test_each_receipt_is_read_once(out: Path, tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    (run / "batches").mkdir(parents=True)
    write_batch(run / "batches" / "000.parquet", [ball.task for ball in BALLS[:6]])
    write_batch(run / "batches" / "001.parquet", [ball.task for ball in BALLS[6:]])
    output, names = open_output(out), []
    read = type(output).get
    monkeypatch.setattr(type(output), "get", lambda self, name: names.append(name) or read(self, name))
    assert verify(output, run) == []
    receipts = [name for name in names if name.startswith("receipts/")]
    assert len(receipts) == len(set(receipts)) == 4


def test_an_old_or_missing_manifest_is_found(out: Path, tmp_path: Path) -> None:
    seal(open_output(out), tmp_path / "more", Ball("late", shard="002-000000"))
    assert found(out) == [("stale-manifest", "manifest/manifest.json")]
    build_manifest(open_output(out))
    assert found(out) == []
    (out / "manifest" / "manifest.json").unlink()
    assert found(out) == [("missing-manifest", "manifest/manifest.json")]
    assert verify(open_output(tmp_path / "empty")) == []


def reseal(out: Path, edit: Callable) -> list[Problem]:
    """Change a receipt as a faulty program would, checksum and all, and verify."""
    output = open_output(out)
    receipt = edit(read_receipt(output, "000-000000"))
    output.put_bytes("receipts/000-000000.json", encode_receipt(receipt))
    build_manifest(output)
    return verify(output)


def with_record(receipt, **changes):
    records = (replace(receipt.records[0], **changes), *receipt.records[1:])
    return replace(receipt, records=records)


def shifted(receipt):
    sample = receipt.samples[0]
    members = tuple(replace(member, offset=member.offset + 1) for member in sample.members)
    return replace(receipt, samples=(replace(sample, members=members), *receipt.samples[1:]))


@pytest.mark.parametrize(
    ("edit", "kinds", "message"),
    [
        (lambda r: with_record(r, seed=7), {"bad-cameras"}, "apple: key and seed must be"),
        (lambda r: with_record(r, key="0" * 32), {"bad-cameras"}, "apple: key and seed must be"),
        (lambda r: replace(r, sha256="0" * 64), {"bad-tar"}, "must have sha256 0000000000000000..."),
        (lambda r: replace(r, bytes=5), {"bad-tar"}, "must have 5 bytes"),
        (shifted, {"bad-sample"}, "apple.condition.albedo_00.webp is not what was sealed"),
        (lambda r: replace(r, context=r.context | {"spec_digest": "0"}), {"bad-receipt"}, "spec_digest must be"),
    ],
)  # fmt: skip
def test_receipts_that_lie_are_found(tmp_path: Path, edit, kinds, message) -> None:
    seal(open_output(tmp_path / "out"), tmp_path / "s", Ball("apple"), Ball("bell"))
    problems = reseal(tmp_path / "out", edit)
    assert {problem.kind for problem in problems} == kinds
    assert message in problems[0].message


def test_a_record_without_its_sample_is_found(tmp_path: Path) -> None:
    seal(open_output(tmp_path / "out"), tmp_path / "s", Ball("apple"), Ball("bell"))
    problems = reseal(tmp_path / "out", lambda r: replace(r, samples=r.samples[1:]))
    kinds = {problem.kind for problem in problems}
    assert {"bad-record", "bad-cameras"} <= kinds
    assert any(
        "apple.condition is promised by its record, but not in the tar" in problem.message for problem in problems
    )


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        # the mislabelling of resumed runs: pictures of one draw, cameras of another
        (lambda i: replace(i, orbit=i.orbit.subset([1, 2, 0])), "T_world_camera is not what the asset's seed"),
        (lambda i: replace(i, orbit=nudged(i.orbit)), "T_world_camera is not what the asset's seed"),
        (lambda i: replace(i, renderer={"light": {"kind": "uniform", "strength": 2.0}}), "its light is not what"),
        (lambda i: replace(i, orbit=replace(i.orbit, focal_px=i.orbit.focal_px * (1 + 1e-9))), "focal length"),
    ],
)
def test_cameras_of_another_draw_are_found(tmp_path: Path, edit, message: str) -> None:
    ball, output = Ball("apple"), open_output(tmp_path / "out")
    folder = ball.stage(tmp_path / "s")
    write_orbit(folder, edit(read_orbit(folder, "ring24")))
    seal_shard(output, ball.shard, [ball.record()], {"apple": folder}, context=run_context(SPEC, VERSIONS))
    build_manifest(output)
    problems = verify(output)
    assert [problem.kind for problem in problems] == ["bad-cameras"]
    assert message in problems[0].message
    assert "apple.ring24" in problems[0].message


def nudged(orbit):
    poses = orbit.T_world_camera.copy()
    poses[1, 0, 3] += 1e-9
    return replace(orbit, T_world_camera=poses)


def test_a_tar_that_holds_more_is_found(out: Path) -> None:
    """As sealed by a faulty program: the checksum is right, the content is not."""
    output = open_output(out)
    path = out / "shards" / "000-000000.tar"
    receipt = read_receipt(output, "000-000000")
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("README.txt"))
    receipt = replace(receipt, bytes=path.stat().st_size, sha256=output.sha256("shards/000-000000.tar"))
    output.put_bytes("receipts/000-000000.json", encode_receipt(receipt))
    build_manifest(output)
    assert found(out) == [("bad-receipt", "shards/000-000000.tar")]


def test_shards_of_the_run_that_are_missing_are_found(out: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "batches").mkdir(parents=True)
    write_batch(run / "batches" / "000.parquet", [ball.task for ball in BALLS[:6]])
    write_batch(run / "batches" / "001.parquet", [ball.task for ball in BALLS[6:]])
    assert verify(open_output(out), run) == []
    late = [Ball("late", shard="002-000000").task, Ball("later", shard="002-000000", refusal=FAILED).task]
    write_batch(run / "batches" / "002.parquet", late)
    assert found(out, run=run) == [("missing-shard", "shards/002-000000.tar")]
    assert "2 objects of the run are not sealed yet; run it again" in verify(open_output(out), run)[0].message
    (run / "batches" / "002.parquet").unlink()
    write_batch(run / "batches" / "001.parquet", [ball.task for ball in (*BALLS[6:], Ball("x", shard="001-000000"))])
    assert found(out, run=run) == [("missing-object", "receipts/001-000000.json")]
    (run / "batches" / "001.parquet").unlink()
    assert found(out, run=run) == [("stray", "receipts/001-000000.json")]


def test_shards_are_named_by_their_receipts_only(out: Path) -> None:
    (out / "shards" / "000-000009.tar").write_bytes(b"")
    (out / "receipts" / "000-000009.json.partial").write_bytes(b"")
    assert list_receipts(open_output(out)) == ("000-000000", "000-000001", "000-000002", "001-000000")
    assert json.loads((out / "receipts" / "000-000000.json").read_bytes())["shard"] == "000-000000"
