"""Broken models of every kind beside good ones, in one run with real Blender: each ends with its own reason, in words."""

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from render_farm.catalogue.folder import folder_entries
from render_farm.catalogue.scan import scan
from render_farm.catalogue.table import table_entries
from render_farm.records import Filters, ObjectRecord
from render_farm.run.folder import Run
from render_farm.run.scheduler import FarmSettings, run_shards
from render_farm.shards import build_manifest, open_output, read_rows, verify
from render_farm.spec import AssetPolicy, CameraSpec, Execution, RenderSpec
from tests.render_farm.broken_assets import MAX_TRIANGLES, make_folder, make_table
from tests.render_farm.run.farms import assert_whole, receipts, wait_for_none

pytestmark = [pytest.mark.blender, pytest.mark.slow]

VIEWS = 4
"""So far apart that only what each of them sees well can be compared: nothing may be called inconsistent."""
SPEC = RenderSpec(
    CameraSpec(views=VIEWS, distance_m=2.0, elevation_deg=20.0), width=64, height=64, samples=4,
    assets=AssetPolicy(animated="refuse", missing_textures="refuse", max_triangles=MAX_TRIANGLES),
)  # fmt: skip
FILTERS = Filters(untextured="plain", cropped="refuse", over_exposed="refuse", licences=("CC0-1.0", "?"))
SETTINGS = FarmSettings(
    slots=2, execution=Execution(threads=1, import_timeout_s=10.0), retries=0, min_free_bytes=0
)  # fmt: skip
"""Ten seconds for a file that takes none: one of them hangs until they are over."""
FORMATS = ".glb .gltf .obj .fbx .ply .stl .usd .usda .usdc .usdz .dae .abc .blend"
MESSAGES = {
    "truncated": ("scanning", "cut_off.glb: truncated GLB: its header promises {n} bytes, the file holds {n}; fetch it again"),
    "malformed": ("scanning", "web_page.glb: expected a glb file, found a web page; the download saved an error page: fetch "
                  "it again"),
    "unsupported-extension": ("scanning", "basisu.glb: requires the glTF extension KHR_texture_basisu, which Blender does "
                              "not read; export it without"),
    "unsupported-format": ("scanning", "gltf_1.glb: expected glTF version 2, found 1; convert it"),
    "missing-file": ("scanning", "no_buffer.gltf: its buffer 'gone.bin' is not beside it; copy it there"),
    "not-finite": ("scanning", "not_numbers.glb: 1 vertices are not finite numbers, the first is vertex 5 of accessor 0; "
                   "repair the mesh"),
    "too-large": ("scanning", "many.glb: 108 triangles, instances counted, more than the 100 allowed (max_triangles)"),
    "duplicate": ("scanning", "same_bytes: expected each file once, found the bytes of good_1; leave one out, or set "
                  "duplicates to keep"),
    "unknown-format": ("scanning", f"old.3ds: expected one of {FORMATS}, found '.3ds'; convert it to .glb"),
    "not-a-file": ("scanning", "{folder}/table/folder.glb: expected a model file, found a folder; name one file in it"),
    "licence": ("scanning", "not_free: expected a licence of CC0-1.0 ?, found CC-BY-NC-4.0; leave it out, or allow that "
                "licence"),
    "fetch-failed": ("scanning", "other_bytes.glb: expected the sha256 that its source lists, 000000000000..., found "
                     "{hash}...; fetch it again"),
    "import-failed": ("importing", "bad.fbx: Blender cannot import it (AttributeError: 'NoneType' object has no attribute "
                      "'elems'); export it again"),
    "timeout": ("importing", "hangs.obj: not done within 10 s while importing: stopped; raise the time limit or simplify "
                "the model"),
    "no-triangles": ("posing and measuring", "only_points.glb: it holds no triangles: expected a surface, found 2 visible "
                     "objects without faces; is everything hidden, or is it a point cloud?"),
    "zero-size": ("posing and measuring", "one_point.glb: its bounding box has no usable size: expected a longest side "
                  "between 1e-09 and 1e+12, found 0; scale it"),
    "animated": ("posing and measuring", "moving.glb: it is animated (frames 0 to 24): allow it with the policy render"),
    "missing-textures": ("preparing materials", "no_texture.glb: texture 'gone.png' is missing; put the file beside it, or "
                         "allow neutral colours"),
    "blank": ("checking", "unseen, orbit ring24: all 4 pictures are empty: expected the object, found nothing opaque; are "
              "its materials fully transparent?"),
    "tiny": ("checking", "needle, orbit ring24: expected the object to cover at least 0.50% of its average picture, found "
             "{share}%; lower tiny_coverage to keep it"),
    "cropped": ("checking", "wide, orbit ring24: expected the object inside its pictures, found it at the border of {n} of 4 "
                "(first: view {n}); use fit sphere, or let cropped be flagged"),
    "over-exposed": ("checking", "glaring, orbit ring24: expected at most 60% of the object clipped to white, found 100%; "
                     "lower the light's strength, or let over_exposed be flagged"),
    "untextured": ("checking", "plain: expected a textured object, found one plain colour; set untextured to keep to have "
                   "it all the same"),
}  # fmt: skip
"""Reason -> stage and message: what, expected, found, what to do."""
WHAT_VARIES = {"{n}": r"\d+", "{share}": r"0\.\d\d", "{hash}": "[0-9a-f]{12}"}


@dataclass(frozen=True)
class Farmed:
    run: Run
    reasons: dict[str, str]
    records: dict[str, ObjectRecord]


@pytest.fixture(scope="module")
def farmed(tmp_path_factory: pytest.TempPathFactory) -> Farmed:
    folder = tmp_path_factory.mktemp("broken")
    reasons = make_folder(folder / "models")
    table, more = make_table(folder / "table")
    run = Run.create(folder / "run", SPEC, FILTERS, shard_objects=8)
    for entries in (folder_entries(folder / "models"), table_entries(table)):
        known = {task.uid: task.sha256 for task in run.tasks()}
        run = run.add_batch(scan(entries, SPEC, FILTERS, run.next_batch, run.shard_objects, known))
    run_shards(run, None, SETTINGS)
    return Farmed(run, reasons | more, {record.uid: record for each in receipts(run) for record in each.records})


def test_each_ends_with_its_own_reason(farmed):
    assert {uid: record.refusal.reason if record.refusal else "" for uid, record in farmed.records.items()} == (
        farmed.reasons
    )
    reasons = [reason for reason in farmed.reasons.values() if reason]
    assert len(set(reasons)) == len(reasons) == len(MESSAGES)


@pytest.mark.parametrize("reason", MESSAGES)
def test_it_says_what_and_why_and_what_to_do(farmed, reason):
    refusal = next(r.refusal for r in farmed.records.values() if r.refusal and r.refusal.reason == reason)
    stage, message = MESSAGES[reason]
    pattern = re.escape(message.replace("{folder}", str(farmed.run.folder.parent)))
    for mark, meaning in WHAT_VARIES.items():
        pattern = pattern.replace(re.escape(mark), meaning)
    assert refusal.stage == stage
    assert re.fullmatch(pattern, refusal.message), refusal.message


@pytest.mark.parametrize("uid", ["good_1", "good_2"])
def test_the_good_ones_are_done(farmed, uid):
    record = farmed.records[uid]
    assert (record.outcome, record.orbits, record.flags, record.attempts) == ("done", ("ring24",), (), 1)


def test_what_is_refused_before_blender_costs_no_attempt(farmed):
    for record in farmed.records.values():
        before = record.refusal is not None and record.refusal.stage == "scanning"
        assert record.attempts == (0 if before else 1), record.uid


def test_nothing_is_lost_or_left(farmed):
    assert_whole(farmed.run)
    assert wait_for_none(farmed.run.folder.parent) == []


def test_manifest_and_command_list_them(farmed):
    output = open_output(farmed.run.out_url)
    made = build_manifest(output)
    assert (made.objects, made.views, dict(made.reasons)) == (2, 2 * VIEWS, dict.fromkeys(MESSAGES, 1))
    rows = {row["uid"]: row for row in read_rows(output, "failures")}
    assert {uid: row["reason"] for uid, row in rows.items()} | {"good_1": "", "good_2": ""} == farmed.reasons
    assert verify(output, farmed.run.folder) == []
    command = [sys.executable, "-m", "render_farm.cli", "failures", str(farmed.run.folder), "--by", "reason"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(line.split() for line in done.stdout.splitlines()) == sorted(["1", reason] for reason in MESSAGES)
