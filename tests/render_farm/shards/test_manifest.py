"""The manifest: deterministic tables of what the receipts say; the newest batch counts; duplicates stay in one split."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.files.images import decode_webp
from render_farm.cameras import plan_orbits
from render_farm.errors import RunError
from render_farm.shards import (
    PIXEL_COLUMNS,
    RUN_COLUMNS,
    build_manifest,
    open_output,
    read_manifest,
    read_rows,
    split_of,
)
from render_farm.shards.digested import DIGEST
from render_farm.shards.tables import SCHEMAS
from render_farm.spec import RenderSpec, task_seed
from tests.render_farm.shards.conftest import BALLS, FAILED
from tests.render_farm.staged import SPEC, Ball, seal


def rows(folder: Path, table: str) -> list[dict]:
    return list(read_rows(open_output(folder), table))


def test_the_newest_batch_counts(sealed: Path) -> None:
    objects, failures = rows(sealed, "objects"), rows(sealed, "failures")
    assert [(row["shard"], row["uid"]) for row in objects] == [
        ("000-000000", "apple"), ("000-000000", "cherry"), ("000-000001", "bell"), ("001-000000", "apple2"),
        ("001-000000", "egg"),
    ]  # fmt: skip
    assert [(row["shard"], row["uid"], row["reason"]) for row in failures] == [
        ("000-000001", "drum", "crash"), ("000-000002", "figs", "crash"),
    ]  # fmt: skip
    assert failures[0]["message"] == FAILED.message
    assert (failures[0]["stage"], failures[0]["detail"], failures[0]["attempts"]) == (FAILED.stage, FAILED.detail, 1)


def test_batches_are_ordered_by_number_and_not_by_text(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    seal(output, tmp_path / "s", Ball("egg", shard="999-000000"), Ball("egg", shard="1000-000000", refusal=FAILED))
    summary = build_manifest(output)
    assert (summary.objects, summary.failures, summary.reasons) == (0, 1, {"crash": 1})


def test_rows_of_objects_say_what_records_say(sealed: Path) -> None:
    row, ball = rows(sealed, "objects")[0], BALLS[0]
    record = ball.record()
    for name in ("uid", "key", "shard", "sha256", "seed", "attempts", "wall_s", "cpu_s", "peak_bytes", "worker"):
        assert row[name] == getattr(record, name), name
    for name in ("caption", "label", "license", "attribution", "source"):
        assert row[name] == getattr(record.provenance, name), name
    assert (row["orbits"], row["views"], row["flags"]) == (["ring24", "condition"], 5, ["cropped"])
    assert (row["tar"], row["scale"], row["centre"]) == ("shards/000-000000.tar", 0.5, [1.0, 2.0, 3.0])
    assert json.loads(row["facts"]) == record.facts
    assert json.loads(row["quality"]) == record.quality
    assert (row["triangles"], row["mesh_hash"], row["textured"]) == (12, "mesh of apple", "image")


def test_rows_of_views_have_exact_cameras_and_point_at_pictures(sealed: Path) -> None:
    found = rows(sealed, "views")
    assert len(found) == 5 * 5
    planned = {item.orbit.name: item for item in plan_orbits(task_seed(BALLS[2].sha256, SPEC), SPEC)}
    images = {images.orbit.name: images for images in BALLS[2].images()}
    cherry = [row for row in found if row["uid"] == "cherry"]
    assert [(row["orbit"], row["view"]) for row in cherry] == [("condition", 0), ("condition", 1), ("ring24", 0),
                                                               ("ring24", 1), ("ring24", 2)]  # fmt: skip
    for row in cherry:
        orbit, view = planned[row["orbit"]].orbit, row["view"]
        assert np.array_equal(np.reshape(row["T_world_camera"], (4, 4)), orbit.T_world_camera[view])
        assert (row["azimuth_deg"], row["elevation_deg"]) == (orbit.azimuth_deg[view], orbit.elevation_deg[view])
        assert (row["distance_m"], row["focal_px"]) == (orbit.distance_m[view], orbit.focal_px)
        assert (row["principal_u_px"], row["principal_v_px"]) == orbit.principal_px
        assert json.loads(row["light"]) == planned[row["orbit"]].light
        tar = (sealed / row["tar"]).read_bytes()
        picture = decode_webp(tar[row["rgba_offset"] : row["rgba_offset"] + row["rgba_bytes"]])
        assert np.array_equal(picture, images[row["orbit"]].rgba[view])


def test_measures_of_views_are_taken_where_the_checks_give_them(tmp_path: Path) -> None:
    ball = Ball("apple", spec=replace(SPEC, condition=None))
    output, staged = open_output(tmp_path / "out"), ball.stage(tmp_path / "s")
    measured = {"ring24": {"coverage": {"shares": [0.1, 0.2, 0.3]}, "border": {"touches": [True, False, True]}}}
    from render_farm.shards import run_context, seal_shard

    record = replace(ball.record(), quality=measured)
    seal_shard(output, ball.shard, [record], {"apple": staged}, context=run_context(ball.spec, {}))
    build_manifest(output)
    found = rows(tmp_path / "out", "views")
    assert [(row["coverage"], row["border"]) for row in found] == [(0.1, True), (0.2, False), (0.3, True)]


def test_the_summary_signs_everything(sealed: Path) -> None:
    output = open_output(sealed)
    manifest = read_manifest(output)
    for table, facts in manifest["tables"].items():
        data = (sealed / "manifest" / f"{table}.parquet").read_bytes()
        assert facts == {
            "rows": len(rows(sealed, table)),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    assert set(manifest["tables"]) == {"objects", "views", "failures"}
    for entry in manifest["shards"]:
        receipt = (sealed / "receipts" / f"{entry['shard']}.json").read_bytes()
        assert entry["receipt_sha256"] == hashlib.sha256(receipt).hexdigest()
    assert [entry["tar"] for entry in manifest["shards"]][2] is None
    assert RenderSpec.from_json(json.dumps(manifest["spec"])) == SPEC
    conventions = manifest["conventions"]
    assert (conventions["alpha"], conventions["view_transform"]) == ("straight", "Standard")
    assert manifest["counts"]["objects"] == 5
    assert DIGEST not in manifest
    assert manifest["counts"]["flags"] == {"cropped": 5}


def test_the_same_receipts_give_the_same_files(sealed: Path, out: Path) -> None:
    calls: list[tuple[int, int]] = []
    build_manifest(open_output(out), progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for path in (sealed / "manifest").iterdir():
        assert path.read_bytes() == (out / "manifest" / path.name).read_bytes(), path.name


def test_a_second_run_differs_only_in_the_columns_that_are_named(tmp_path: Path, monkeypatch) -> None:
    """Another machine: other times, other pixels, other attempts; the same objects."""
    seal(open_output(tmp_path / "one"), tmp_path / "s1", *BALLS)
    record = Ball.record

    def other(self: Ball):
        before = record(self)
        quality = {"picture_hash": before.quality["picture_hash"][:-1] + "0"} if before.quality else {}
        return replace(
            before, attempts=2, wall_s=9.0, cpu_s=8.0, peak_bytes=7, worker="Blender 5, GPU", stages={"render_s": 0.1},
            quality=quality, flags=(),
        )  # fmt: skip

    monkeypatch.setattr(Ball, "record", other)
    brighter = [replace(ball, colour=(90, 255, 90)) for ball in BALLS]
    seal(open_output(tmp_path / "two"), tmp_path / "s2", *brighter)
    for name in ("one", "two"):
        build_manifest(open_output(tmp_path / name))
    for table, schema in SCHEMAS.items():
        varying = {*PIXEL_COLUMNS[table], *RUN_COLUMNS[table]}
        assert varying <= set(schema.names)
        constant = [name for name in schema.names if name not in varying]
        one, two = (list(read_rows(open_output(tmp_path / name), table, constant)) for name in ("one", "two"))
        assert one == two
        assert one
    whole = [list(read_rows(open_output(tmp_path / name), "objects")) for name in ("one", "two")]
    assert whole[0] != whole[1]


def test_duplicates_are_named_and_stay_together(sealed: Path) -> None:
    found = {row["uid"]: row for row in rows(sealed, "objects")}
    # 0xff and 0x1fe differ in two bits
    assert (found["apple2"]["cluster"], found["apple2"]["duplicate_of"]) == ("apple", "apple")
    assert found["apple2"]["duplicate_by"] == "picture"
    assert (found["apple"]["cluster"], found["apple"]["duplicate_of"]) == ("apple", None)
    assert found["apple"]["split"] == found["apple2"]["split"] == split_of("apple")
    views = {row["uid"]: row["split"] for row in rows(sealed, "views")}
    assert views == {uid: row["split"] for uid, row in found.items()}


def test_fractions_are_the_callers(out: Path) -> None:
    assert build_manifest(open_output(out), fractions=(0.0, 0.0, 1.0)).splits == {"train": 0, "val": 0, "test": 5}
    with pytest.raises(ValueError, match="fractions must be three shares that add up to 1"):
        build_manifest(open_output(out), fractions=(0.5, 0.5, 0.5))


def test_two_specs_in_one_output_are_refused(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    seal(output, tmp_path / "s", Ball("a"), Ball("b", shard="000-000001", spec=replace(SPEC, samples=7)))
    with pytest.raises(RunError, match=r"receipts/000-000001.json: must be of spec \w+ like the shards before"):
        build_manifest(output)


def test_nothing_to_merge_and_nothing_to_read_are_said(tmp_path: Path, out: Path) -> None:
    with pytest.raises(RunError, match="holds no receipt: no shard is sealed yet"):
        build_manifest(open_output(tmp_path / "empty"))
    with pytest.raises(RunError, match=r"manifest\.json: is missing; build the manifest first"):
        read_manifest(open_output(tmp_path / "empty"))
    (out / "manifest" / "objects.parquet").write_bytes(b"no Parquet")
    with pytest.raises(RunError, match=r"objects\.parquet: is damaged .* build the manifest again"):
        rows(out, "objects")


def test_empty_tables_have_their_columns(tmp_path: Path) -> None:
    output = open_output(tmp_path / "out")
    seal(output, tmp_path / "s", Ball("a", refusal=FAILED))
    build_manifest(output)
    for table, schema in SCHEMAS.items():
        assert pq.read_schema(tmp_path / "out" / "manifest" / f"{table}.parquet").names == schema.names


def test_a_broken_build_leaves_no_table(out: Path) -> None:
    (out / "receipts" / "001-000000.json").write_bytes(b"{}")
    before = {path.name: path.read_bytes() for path in (out / "manifest").iterdir()}
    with pytest.raises(RunError, match="is damaged"):
        build_manifest(open_output(out))
    assert {path.name: path.read_bytes() for path in (out / "manifest").iterdir()} == before
