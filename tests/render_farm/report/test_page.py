"""The report of a small output: sealed shards in, a page, sheets and a list of authors out."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.files import OrbitImages, write_orbit
from engine.geometry import RING24
from render_farm.checks import examine
from render_farm.errors import RunError
from render_farm.records import Filters, ObjectRecord, Provenance, Refusal
from render_farm.report import RunFacts, write_report
from render_farm.report.charts import BINS, curves, histogram, stacked_bar
from render_farm.report.sheets import GAP_PX, PAPER, TEXT_PX, VIEW_PX
from render_farm.shards import Output, build_manifest, open_output, run_context, seal_shard
from render_farm.spec import RenderSpec

EVIL = '<script>alert("x")</script>'
COLOURS = {"ant": (200, 30, 30), "bee": (30, 200, 30)}


def square(uid: str, colour: tuple[int, int, int], left: int = 16) -> OrbitImages:
    """A flat square in every view; of another shade in each."""
    rgba = np.zeros((24, 64, 64, 4), np.uint8)
    rgba[:, 16:48, left:48] = (*colour, 255)
    rgba[..., 2] += np.arange(24, dtype=np.uint8)[:, None, None]
    return OrbitImages(uid=uid, orbit=RING24.orbit(10.0, 64, 64), rgba=rgba)


def record(uid: str, shard: str, **more: Any) -> ObjectRecord:
    provenance = Provenance(f"caption {EVIL}", f"label {uid}", "CC-BY-4.0", f"author\nof {uid}", "https://example.org")
    return ObjectRecord(uid, uid, shard, uid, provenance, **{"outcome": "done", "attempts": 1, **more})


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """One shard of two objects and a failure."""
    output, records, staged = open_output(tmp_path / "out"), [], {}
    for uid, colour in COLOURS.items():
        images = square(uid, colour, left=0 if uid == "bee" else 16)
        verdict = examine((images,), {}, Filters())
        staged[uid] = tmp_path / "staging" / uid
        write_orbit(staged[uid], replace(images, license="CC-BY-4.0"))
        stages = {"import_s": 1.0, "render_s": 8.0, "write_s": 1.0}
        records.append(record(uid, "000-000000", orbits=("ring24",), quality=verdict.quality, flags=verdict.flags,
                              stages=stages, wall_s=10.0, peak_bytes=2**28, facts={"textured": "image"}))  # fmt: skip
    refusal = Refusal("timeout", f"cat.glb: {EVIL}", "rendering view 3", f"last words {EVIL}")
    records.append(record("cat", "000-000000", outcome="failed", refusal=refusal, attempts=2))
    seal_shard(output, "000-000000", records, staged, context=run_context(RenderSpec(), {"blender": "4.5"}))
    build_manifest(output)
    return output


class Tags(HTMLParser):
    """Collects tags, and checks that they close."""

    VOID = frozenset({"meta", "img", "br", "rect", "line", "polyline", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") and value]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def parse(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    return tags


def test_the_page_tells_what_happened(output):
    address = write_report(output, title="Small run", run=RunFacts(wall_s=7200.0))
    assert address.endswith("report/index.html")
    page = output.get("report/index.html").decode()
    for words in ("Small run", "of 3 objects done", "66.7%", "80.0% of the workers", "timeout", "cat", "rendering view",
                  "CC-BY-4.0", "spec", "camera_axes", "last words", "cropped"):  # fmt: skip
        assert words in page, words
    assert re.search(r"<b>1</b><span>objects an hour", page)


def test_texts_of_objects_are_never_markup(output):
    write_report(output)
    page = output.get("report/index.html").decode()
    assert "script" not in parse(page).names
    assert "cat.glb: &lt;script&gt;" in page


def test_everything_the_page_shows_is_there(output):
    write_report(output)
    links = parse(output.get("report/index.html").decode()).links
    local = {link for link in links if not link.startswith(("#", "data:"))}
    assert local == {"sheet_000-000000_00.webp", "attribution.txt"}
    assert all(output.exists(f"report/{name}") for name in local)
    assert any(link.startswith("data:image/webp") for link in links), "worst objects have thumbnails"


def test_contact_sheets_show_the_pictures_on_grey(output):
    write_report(output)
    sheet = Image.open(io.BytesIO(output.get("report/sheet_000-000000_00.webp"))).convert("RGB")
    assert sheet.size == (2 * (4 * VIEW_PX + GAP_PX) + GAP_PX, VIEW_PX + TEXT_PX + 2 * GAP_PX)
    for tile, colour in enumerate(COLOURS.values()):
        for view, shade in enumerate((0, 6, 12, 18)):  # a quarter of 24 views apart
            left = GAP_PX + tile * (4 * VIEW_PX + GAP_PX) + view * VIEW_PX
            middle = sheet.getpixel((left + VIEW_PX // 2, GAP_PX + VIEW_PX // 2))
            # WebP at quality 82 shifts plain colours a little
            assert np.abs(np.subtract(middle, (colour[0], colour[1], colour[2] + shade))).max() <= 6
            assert np.abs(np.subtract(sheet.getpixel((left + VIEW_PX - 8, GAP_PX + 8)), PAPER)).max() <= 6


def test_authors_are_listed_one_a_line(output):
    write_report(output)
    lines = output.get("report/attribution.txt").decode().splitlines()
    assert lines[1] == "ant | label ant | CC-BY-4.0 | author of ant | https://example.org"
    assert len(lines) == 3


def test_memory_is_drawn_where_it_is_given(output):
    write_report(output)
    assert "Resident memory" not in output.get("report/index.html").decode()
    write_report(output, run=RunFacts(memory={"worker 0": [(0.0, 2.0**28), (60.0, 2.0**29)]}))
    page = output.get("report/index.html").decode()
    assert "Resident memory" in page
    assert "512 MiB" in page


def test_a_run_without_a_single_orbit_has_a_report(tmp_path):
    output = open_output(tmp_path / "out")
    lost = record("cat", "000-000000", outcome="failed", refusal=Refusal("blank", "nothing"))
    seal_shard(output, "000-000000", [lost], {}, context=run_context(RenderSpec(), {}))
    build_manifest(output)
    write_report(output)
    page = output.get("report/index.html").decode()
    assert "0.0%" in page
    assert "Duplicates" not in page


def test_an_output_without_a_manifest_has_none(tmp_path):
    with pytest.raises(RunError, match=r"manifest\.json: is missing; build the manifest first"):
        write_report(open_output(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_duplicates_are_shown_beside_each_other(output, tmp_path):
    """The largest clusters, with pictures: is what the manifest calls the same the same?"""
    uid = "dee"
    images = square(uid, COLOURS["ant"])
    verdict = examine((images,), {}, Filters())
    write_orbit(tmp_path / "staging" / uid, images)
    twin = record(uid, "000-000001", orbits=("ring24",), quality=verdict.quality, stages={"render_s": 1.0}, wall_s=1.0)
    seal_shard(output, "000-000001", [twin], {uid: tmp_path / "staging" / uid}, context=run_context(RenderSpec(), {}))
    build_manifest(output)
    write_report(output, most_sheets=1)
    page = output.get("report/index.html").decode()
    assert "2 by picture" in page
    cluster = page[page.index('class="likes"') : page.index('id="sheets"')]
    assert cluster.index('title="ant"') < cluster.index('title="bee"') < cluster.index('title="dee"')
    assert "<b>3</b>" in cluster
    assert "1 of 2 shards, evenly spread" in page


def test_no_sheets_if_none_are_wanted(output):
    write_report(output, most_sheets=0)
    assert not any(name.endswith(".webp") for name in output.list("report"))


def test_histograms_count_every_value():
    svg = str(histogram([0.0, 0.1, 0.1, 5.0, -5.0], low=0.0, high=1.0, mark=0.5, unit=" px"))
    counts = [int(n) for n in re.findall(r": (\d+)</title>", svg)]
    assert sum(counts) == 5
    assert len(counts) <= BINS
    assert 'class="limit"' in svg


def test_charts_escape_and_add_up():
    svg = str(stacked_bar({"a<b": 3.0, "c": 1.0}))
    assert "a&lt;b: 75.0%" in svg
    assert [float(w) for w in re.findall(r'width="([\d.]+)"', svg)] == [750.0, 250.0]
    assert str(curves({}, unit="MiB")) == ""
