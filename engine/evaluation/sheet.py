"""The contact sheet of an evaluation: true views, generated ones and the baseline's, from the best to the worst object."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from engine.files import write_preview

COLUMNS = 8
"""Views a row, evenly spaced; the first one is the picture that was given."""


def spread(scores: Mapping[str, float], count: int) -> list[str]:
    """Return `count` objects from the best to the worst, evenly spread over the ranking: neither chosen nor lucky."""
    ranked = sorted(scores, key=lambda uid: (-scores[uid], uid))
    count = min(count, len(ranked))
    return [ranked[round(index * (len(ranked) - 1) / max(count - 1, 1))] for index in range(count)]


def write_sheet(path: Path, rows: Sequence[tuple[str, UInt8[np.ndarray, "n h w 4"]]]) -> None:
    """Write rows of views over white, a title each, as PNG.

    Args:
        path: the file.
        rows: title and views of one orbit.
    """
    pictures, titles = [], []
    for title, views in rows:
        chosen = [index * len(views) // COLUMNS for index in range(min(COLUMNS, len(views)))]
        pictures.append([views[index] for index in chosen])
        titles.append(title)
    write_preview(path, pictures, titles=titles, background="white")
