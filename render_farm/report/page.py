"""The report's page::

    manifest -> ReportData -> counts, charts, tables -\\
    shards   -> contact sheets, thumbnails -----------+-> jinja2 (autoescape) -> report/index.html

Everything that comes from objects (captions, labels, error messages) is untrusted and goes through the template's
escaping; only charts are markup, and they escape their own texts.
"""

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import groupby
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from render_farm.checks.verdict import MEDIAN_PX
from render_farm.report import charts
from render_farm.report.data import FailureRow, ObjectRow, ReportData, read_pictures, read_report_data
from render_farm.report.sheets import VIEW_SHARES, Sheet, data_uri, load, write_sheets
from render_farm.shards import Output

log = logging.getLogger(__name__)

FOLDER = "report"
INDEX = f"{FOLDER}/index.html"
ATTRIBUTION = "attribution.txt"
EXAMPLES, UIDS, WORST, LIKES = 3, 40, 6, 5
"""Messages and uids shown of each reason; objects shown of each measure; of each cluster of duplicates."""
HISTOGRAMS: tuple[tuple[str, str, float, float, float | None, str], ...] = (
    ("coverage", "Coverage of the average picture", 0.0, 0.6, None, ""),
    ("luminance", "Mean luminance (sRGB)", 0.0, 1.0, None, ""),
    ("white", "Share of the object clipped to white", 0.0, 1.0, None, ""),
    ("border", "Share of border pixels that show the object", 0.0, 0.5, None, ""),
    ("agreement", "Views against each other, median", 0.0, MEDIAN_PX, None, " px"),
    ("away", "Normals that face away", 0.0, 0.1, None, ""),
)
"""Measure, title, from, to, limit, unit."""
EXTREMES = (
    ("agreement", "Views agree least", "{:.2g} px", True),
    ("worst_view", "Worst single view", "{:.2g} px", True),
    ("coverage", "Smallest", "{:.2%}", False),
    ("border", "Most cropped", "{:.1%}", True),
    ("white", "Most clipped to white", "{:.1%}", True),
    ("away", "Most normals facing away", "{:.2%}", True),
    ("wall_s", "Slowest", "{:.1f} s", True),
)
"""Measure, title, how it is written, whether large is bad."""


@dataclass(frozen=True)
class RunFacts:
    """What only the run itself knows."""

    wall_s: float = 0.0
    """Of the whole run; 0: not known."""
    workers: int = 0
    """Blender children at a time."""
    cores: int = 0
    """Of the machine or machines."""
    memory: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """Worker to (seconds since the start, resident bytes)."""


def write_report(
    output: Output,
    *,
    title: str = "Render farm",
    run: RunFacts | None = None,
    most_sheets: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write report/index.html, its contact sheets and the attribution list; return the page's address.

    Args:
        output: with its manifest built.
        title: of the page.
        run: what only the run knows.
        most_sheets: shards that get contact sheets, spread evenly over all.
        progress: is told of shards drawn and all.

    Raises:
        RunError: there is no manifest, or a picture cannot be read.
        TurntableError: the file system refused.
    """
    data, run = read_report_data(output), run or RunFacts()
    worst = _worst(data)
    sheets, thumbnails = _pictures(output, data, worst, most_sheets, progress)
    output.put_bytes(f"{FOLDER}/{ATTRIBUTION}", attribution_text(data.objects).encode())
    output.put_bytes(INDEX, render_page(title, data, run, sheets, worst, thumbnails).encode())
    return output.address(INDEX)


def _pictures(
    output: Output,
    data: ReportData,
    worst: Sequence[Mapping[str, Any]],
    most_sheets: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Sheet], dict[str, str]]:
    shards = [(shard, list(rows)) for shard, rows in groupby(data.objects, key=lambda row: row.shard)]
    step = max(1, -(-len(shards) // max(most_sheets, 1)))
    chosen = shards[::step] if most_sheets else []
    shown = {entry["uid"] for table in worst for entry in table["entries"]}
    alike = _duplicates(data.objects)
    shown |= {uid for table in (alike or {"tables": []})["tables"] for c in table["clusters"] for uid in c["uids"]}
    wanted = {row.uid: row.orbit for row in data.objects if row.uid in shown}
    wanted |= {row.uid: row.orbit for _, rows in chosen for row in rows}
    pictures = read_pictures(output, wanted, VIEW_SHARES)
    sheets: list[Sheet] = []
    for done, (shard, rows) in enumerate(chosen):
        sheets += write_sheets(output, FOLDER, shard, rows, pictures)
        if progress:
            progress(done + 1, len(chosen))
    thumbnails = {uid: data_uri(load(output, pictures[uid][0])) for uid in sorted(shown) if pictures.get(uid)}
    return sheets, thumbnails


def render_page(
    title: str,
    data: ReportData,
    run: RunFacts,
    sheets: Sequence[Sheet],
    worst: Sequence[Mapping[str, Any]],
    thumbnails: Mapping[str, str],
) -> str:
    """Return the page's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    source = files("render_farm.report").joinpath("index.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        title=title, manifest=data.manifest, objects=len(data.objects), failures=len(data.failures),
        facts=_facts(data, run), reasons=_reasons(data.failures), flags=_flags(data.objects), stages=_stages(data),
        histograms=_histograms(data), worst=worst, duplicates=_duplicates(data.objects), thumbnails=thumbnails,
        sheets=sheets, shards=len({row.shard for row in data.objects}), drawn=len({sheet.shard for sheet in sheets}),
        licences=Counter(row.license or "unknown" for row in data.objects).most_common(),
        memory=_memory(run), spec=json.dumps(data.manifest.get("spec", {}), indent=2, sort_keys=True),
        attribution=ATTRIBUTION,
    )  # fmt: skip


def _facts(data: ReportData, run: RunFacts) -> list[tuple[str, str]]:
    """Numbers for the top of the page: what and how much."""
    total, done = len(data.objects) + len(data.failures), len(data.objects)
    counts = data.manifest.get("counts", {})
    busy_s = sum(row.wall_s for row in data.objects)
    facts = [(f"of {total:,} objects done", f"{done:,}"), ("success", f"{done / max(total, 1):.1%}")]
    facts += [("views", f"{counts.get('views', 0):,}"), ("shards", f"{counts.get('shards', 0):,}")]
    facts += [("size", _bytes(counts.get("bytes", 0)))]
    if run.wall_s > 0:
        facts += [("objects an hour", f"{done / run.wall_s * 3600:,.0f}"), ("wall time", _duration(run.wall_s))]
    if run.workers and run.cores:
        facts += [("workers on cores", f"{run.workers} on {run.cores}")]
    if done:
        facts += [("worker seconds an object", f"{busy_s / done:.2f}")]
        facts += [("peak memory of a worker", _bytes(max(row.peak_bytes for row in data.objects)))]
    return facts


def _reasons(failures: Sequence[FailureRow]) -> list[dict[str, Any]]:
    groups = {reason: list(rows) for reason, rows in groupby(failures, key=lambda row: row.reason)}
    table = []
    for reason, rows in sorted(groups.items(), key=lambda item: -len(item[1])):
        stages = Counter(row.stage.rstrip("0123456789 ") or "before Blender" for row in rows)
        table.append({
            "reason": reason, "count": len(rows), "share": len(rows) / len(failures), "stages": stages.most_common(4),
            "examples": [{"message": r.message, "detail": r.detail[-2000:]} for r in rows[:EXAMPLES]],
            "uids": [row.uid for row in rows[:UIDS]], "more": max(0, len(rows) - UIDS),
        })  # fmt: skip
    return table


def _flags(objects: Sequence[ObjectRow]) -> list[tuple[str, int]]:
    counts = Counter(flag for row in objects for flag in row.flags)
    counts["duplicate"] = sum(bool(row.duplicate_of) for row in objects)
    return [(flag, count) for flag, count in counts.most_common() if count]


def _stages(data: ReportData) -> dict[str, Any] | None:
    """Where the seconds went: each stage's total, the longest first."""
    total = Counter({name.removesuffix("_s"): seconds for name, seconds in data.stages.items() if seconds > 0})
    parts = dict(total.most_common())
    if not parts:
        return None
    whole, wall = sum(parts.values()), sum(row.wall_s for row in data.objects)
    rows = [
        {"name": n, "seconds": s, "share": s / whole, "mean": s / len(data.objects), "colour": min(i, charts.SERIES - 1)}
        for i, (n, s) in enumerate(parts.items())
    ]  # fmt: skip
    cycles = parts.get("render", 0.0) / wall if wall > 0 else None
    return {"rows": rows, "bar": charts.stacked_bar(parts), "cycles": cycles}


def _histograms(data: ReportData) -> list[dict[str, Any]]:
    found = []
    for name, title, low, high, mark, unit in HISTOGRAMS:
        values = data.measures[name][~np.isnan(data.measures[name])]
        if len(values):
            chart = charts.histogram(values, low=low, high=high, mark=mark, unit=unit)
            middle, most = np.percentile(values, (50, 99))
            found.append({"title": title, "chart": chart, "count": len(values), "median": middle, "p99": most})
    return found


def _worst(data: ReportData) -> list[dict[str, Any]]:
    """For each measure, the objects at its bad end."""
    tables = []
    for name, title, form, large_is_bad in EXTREMES:
        values = data.measures[name] if name != "wall_s" else np.array([row.wall_s for row in data.objects])
        badness = np.where(np.isnan(values), -np.inf, values if large_is_bad else -values)
        last = np.partition(badness, -WORST)[-WORST] if len(badness) > WORST else -np.inf
        is_shown = values > 0 if large_is_bad else ~np.isnan(values)
        chosen = np.flatnonzero(is_shown & (badness >= last)).tolist()
        chosen.sort(key=lambda i: (-badness[i], data.objects[i].uid))
        entries = [
            {"uid": row.uid, "label": row.label, "shard": row.shard, "value": form.format(value), "flags": row.flags}
            for value, row in ((values[i], data.objects[i]) for i in chosen[:WORST])
        ]
        if entries:
            tables.append({"title": title, "entries": entries})
    return tables


def _duplicates(objects: Sequence[ObjectRow]) -> dict[str, Any] | None:
    """How many are another's duplicate, for which reason, and the largest clusters of each reason."""
    clusters: dict[tuple[str, str], list[str]] = {}
    for row in objects:
        if row.duplicate_of:
            clusters.setdefault((row.duplicate_by, row.duplicate_of), []).append(row.uid)
    if not clusters:
        return None
    reasons: Counter[str] = Counter()
    for (reason, _), uids in clusters.items():
        reasons[reason] += len(uids)
    tables = []
    for reason, _ in reasons.most_common():
        largest = sorted((c for c in clusters.items() if c[0][0] == reason), key=lambda c: (-len(c[1]), c[0]))
        shown = [{"count": len(uids) + 1, "uids": [first, *uids][:LIKES]} for (_, first), uids in largest[:WORST]]
        tables.append({"reason": reason, "clusters": shown})
    return {"reasons": reasons.most_common(), "tables": tables}


def _memory(run: RunFacts) -> Any:
    lines = {name: [(x, y / 2**20) for x, y in line] for name, line in run.memory.items()}
    return charts.curves(lines, unit="MiB")


def attribution_text(objects: Sequence[ObjectRow]) -> str:
    """Return the list of authors that CC-BY and its kin ask for: one line an object, by licence."""
    lines = []
    for row in sorted(objects, key=lambda row: (row.license, row.uid)):
        fields = (row.uid, row.label, row.license or "unknown licence", row.attribution, row.source)
        lines.append(" | ".join(" ".join(text.split()) for text in fields))
    return "\n".join(["uid | label | licence | attribution | source", *lines, ""])


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.3g} {units[0]}"


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"
