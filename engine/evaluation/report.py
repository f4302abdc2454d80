"""From every object's figures to means, differences and a table for a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine.evaluation.statistics import Mean, differences, means

ALL, SEEN, UNSEEN = "all", "labels seen in training", "labels unseen in training"
"""Groups of objects."""


@dataclass(frozen=True)
class Block:
    """One block of the table."""

    name: str
    """In the JSON."""
    heading: str
    """In the table."""
    part: str
    """Of the record."""
    within: str | None = None
    """Key of the part's figures that holds the block's own; None: they are the block's own."""
    in_groups: bool = False
    """Whether the table shows groups of objects apart; the JSON always does."""


BLOCKS = (
    Block("views", "views against the true ones, the given first one left out", "views", "novel", True),
    Block(
        "paper_views",
        "the same, counted as the papers do (VideoMV: views 0, 3, ..., 21 of 24; Hi3D: all 16)",
        "views",
        "paper",
    ),
    Block(
        "cross_view",
        "agreement of the views: splats of the even ones, looked at from the odd ones",
        "cross-view",
        in_groups=True,
    ),
    Block("splats_fitted", "splats fitted to the views, against the true views", "splats fitted"),
    Block("splats_feed_forward", "the reconstructor's splats, against the true views", "splats feed-forward"),
    Block("mesh_fitted", "mesh from the fitted splats, against the true mesh", "mesh fitted"),
    Block("mesh_feed_forward", "mesh from the reconstructor's splats, against the true mesh", "mesh feed-forward"),
)
METRICS: Mapping[str, tuple[str, int]] = {
    "psnr_db": ("PSNR dB", 2), "ssim": ("SSIM", 4), "lpips": ("LPIPS", 4), "chamfer": ("Chamfer", 4),
    "fscore": ("F-score", 3), "iou": ("IoU", 3),
}  # fmt: skip
"""Metric -> its head in the table and its decimals; others stay in the JSON."""


@dataclass
class Results:
    """Figures as they come: subject -> part -> object -> figures."""

    figures: dict[str, dict[str, dict[str, dict[str, Any]]]] = field(default_factory=dict)

    def put(self, subject: str, part: str, uid: str, figures: dict[str, Any]) -> None:
        """Keep an object's figures."""
        self.figures.setdefault(subject, {}).setdefault(part, {})[uid] = figures

    def block(self, block: Block) -> dict[str, dict[str, dict[str, float | None]]]:
        """Return subject -> object -> metrics of a block, without what could not be measured."""
        return {
            subject: {
                uid: _metrics(figures if block.within is None else figures[block.within])
                for uid, figures in parts[block.part].items()
                if "failed" not in figures
            }
            for subject, parts in self.figures.items()
            if block.part in parts
        }

    def of(self, uid: str) -> dict[str, dict[str, Any]]:
        """Return subject -> part -> figures of one object."""
        return {
            subject: {part: objects[uid] for part, objects in parts.items() if uid in objects}
            for subject, parts in self.figures.items()
        }

    def scores(self, subject: str, block: str) -> dict[str, float]:
        """Return a subject's PSNR by object in a block; those that could not be measured are 0."""
        which = next(one for one in BLOCKS if one.name == block)
        found = self.block(which).get(subject, {})
        measured = self.figures.get(subject, {}).get(which.part, {})
        return {uid: found.get(uid, {}).get("psnr_db") or 0.0 for uid in measured}

    def failures(self) -> list[dict[str, str]]:
        """Return what could not be measured, and why."""
        return [
            {"uid": uid, "of": subject, "part": part, "why": figures["failed"]}
            for subject, parts in self.figures.items()
            for part, objects in parts.items()
            for uid, figures in objects.items()
            if "failed" in figures
        ]


def _metrics(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: figures[name] for name in METRICS if name in figures}


def summarised(
    results: Results, groups: Mapping[str, Sequence[str]], variants: Sequence[str], baselines: Sequence[str]
) -> dict[str, Any]:
    """Return block -> group -> means of subjects and differences of pairs, all as JSON.

    Differences are of variants from the first one and from the baselines, object by object.

    Args:
        results: all figures.
        groups: name -> objects.
        variants: the preset's, in the order asked for.
        baselines: what they are compared with.
    """
    summary: dict[str, Any] = {}
    for block in BLOCKS:
        subjects = results.block(block)
        if not subjects:
            continue
        pairs = [(other, variants[0]) for other in variants[1:]] + [(v, b) for v in variants for b in baselines]
        summary[block.name] = {
            group: {
                "means": {name: _plain(means(objects, uids)) for name, objects in subjects.items()},
                "differences": {
                    f"{first} - {second}": _plain(differences(subjects[first], subjects[second], uids))
                    for first, second in pairs
                    if first in subjects and second in subjects
                },
            }
            for group, uids in groups.items()
        }
    return summary


def _plain(found: Mapping[str, Mean]) -> dict[str, Any]:
    return {metric: asdict(mean) for metric, mean in found.items()}


def table_of(report: Mapping[str, Any]) -> str:
    """Return a report's means and differences as text: a block a measure, a line a subject."""
    lines = [
        f"{report['preset']} from a {report['source']}: {report['count']} objects, compared at {report['size_px']} px, "
        f"seed {report['seed']}; mean and standard error over objects"
    ]
    for block in BLOCKS:
        for group, found in report["summary"].get(block.name, {}).items():
            rows = {name: row for name, row in {**found["means"], **found["differences"]}.items() if row}
            if rows and (group == ALL or block.in_groups):
                heading = block.heading if group == ALL else f"{block.heading}; {group}"
                lines += ["", f"{heading}:", *_rows(rows, found["differences"])]
    if report["failures"]:
        lines += ["", f"could not be measured: {len(report['failures'])}, see failures in the JSON"]
    return "\n".join(lines)


def _rows(rows: Mapping[str, Mapping[str, Any]], signed: Mapping[str, Any]) -> list[str]:
    metrics = [name for name in METRICS if any(name in row for row in rows.values())]
    width = max(len(name) for name in rows)
    lines = [" " * (width + 2) + "".join(f"{METRICS[metric][0]:>19}" for metric in metrics) + f"{'objects':>9}"]
    for name, row in rows.items():
        cells = "".join(f"{_cell(row.get(metric), METRICS[metric][1], name in signed):>19}" for metric in metrics)
        lines.append(f"  {name:<{width}}{cells}{max(mean['count'] for mean in row.values()):>9}")
    return lines


def _cell(mean: Mapping[str, Any] | None, decimals: int, signed: bool) -> str:
    if mean is None:
        return "-"
    sign = "+" if signed else ""
    error = "" if mean["error"] is None else f" ± {mean['error']:.{decimals}f}"
    return f"{mean['mean']:{sign}.{decimals}f}{error}"
