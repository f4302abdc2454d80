"""Numbers in, inline SVG out. Colours come from the page's CSS classes, so that light and dark both work."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 120
FLOOR, ROOF, LEFT, RIGHT = 98.0, 12.0, 8.0, 312.0
"""Of the plot inside the picture."""
BINS = 32
SERIES = 8
"""Number of colours, classes s0 to s7. Parts of a whole share the last one, a grey; lines begin again."""


def histogram(
    values: Sequence[float] | Float[np.ndarray, " n"],
    *,
    low: float,
    high: float,
    mark: float | None = None,
    unit: str = "",
) -> Markup:
    """Draw how often values occur; those outside are in the outermost bars. `mark` is a limit, drawn as a line."""
    counts, _ = np.histogram(np.clip(values, low, high), BINS, (low, high))
    tallest, step = max(int(counts.max()), 1), (RIGHT - LEFT) / BINS
    bars = [
        f'<rect class="bar" x="{LEFT + i * step:.1f}" y="{FLOOR - _tall(count, tallest):.1f}" width="{step - 1:.1f}" '
        f'height="{_tall(count, tallest):.1f}"><title>{low + i * (high - low) / BINS:.4g} to '
        f"{low + (i + 1) * (high - low) / BINS:.4g}: {count}</title></rect>"
        for i, count in enumerate(counts.tolist())
        if count
    ]
    if mark is not None and low < mark < high:
        x = LEFT + (mark - low) / (high - low) * (RIGHT - LEFT)
        bars.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{ROOF}" y2="{FLOOR}"/>')
    ends = _text(LEFT, FLOOR + 14, f"{low:g}{unit}") + _text(RIGHT, FLOOR + 14, f"{high:g}{unit}", "end")
    top = _text(LEFT, ROOF - 2, f"{tallest}")
    line = f'<line class="axis" x1="{LEFT}" x2="{RIGHT}" y1="{FLOOR}" y2="{FLOOR}"/>'
    return _svg(WIDTH, HEIGHT, "".join(bars) + line + ends + top)


def _tall(count: int, tallest: int) -> float:
    """A single object must be seen beside a thousand others."""
    return max(2.0, count / tallest * (FLOOR - ROOF)) if count else 0.0


def stacked_bar(parts: Mapping[str, float]) -> Markup:
    """Draw shares of a whole as one bar; the caller draws the legend, in the same order."""
    total, x, pieces = sum(parts.values()) or 1.0, 0.0, []
    for index, (name, value) in enumerate(parts.items()):
        width = 1000 * value / total
        pieces.append(
            f'<rect class="s{min(index, SERIES - 1)}" x="{x:.2f}" y="0" width="{width:.2f}" height="28">'
            f"<title>{escape(name)}: {value / total:.1%}</title></rect>"
        )
        x += width
    return _svg(1000, 28, "".join(pieces), stretch=True)


def curves(series: Mapping[str, Sequence[tuple[float, float]]], *, unit: str) -> Markup:
    """Draw values over time (seconds), one line each, from zero."""
    points = [point for line in series.values() for point in line]
    if not points:
        return Markup("")
    last, highest = max(x for x, _ in points) or 1.0, max(y for _, y in points) or 1.0
    lines = []
    for index, (name, line) in enumerate(series.items()):
        path = " ".join(f"{8 + 984 * x / last:.1f},{150 - 130 * y / highest:.1f}" for x, y in line)
        lines.append(f'<polyline class="l{index % SERIES}" points="{path}"><title>{escape(name)}</title></polyline>')
    frame = '<line class="axis" x1="8" x2="992" y1="150" y2="150"/>'
    texts = (
        _text(8.0, 12.0, f"{highest:.3g} {unit}")
        + _text(992.0, 166.0, f"{last / 60:.1f} min", "end")
        + _text(8.0, 166.0, "0")
    )
    return _svg(1000, 172, "".join(lines) + frame + texts)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, content: str, *, stretch: bool = False) -> Markup:
    fit = ' preserveAspectRatio="none"' if stretch else ""
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img"{fit}>{content}</svg>')
