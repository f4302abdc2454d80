"""Figures of many objects in one: means with standard errors, differences of the same objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Figures = Mapping[str, float | None]
"""Metric -> value of one object; None where it has none."""


@dataclass(frozen=True)
class Mean:
    """A mean over objects."""

    mean: float
    """The mean."""
    error: float | None
    """Its standard error: standard deviation over the root of the count; None of a single object."""
    count: int
    """How many objects had the figure."""


def mean_of(values: Sequence[float]) -> Mean | None:
    """Return mean and standard error; None of nothing."""
    if not len(values):
        return None
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Mean(float(np.mean(values)), error, len(values))


def means(objects: Mapping[str, Figures], among: Sequence[str]) -> dict[str, Mean]:
    """Return the mean of each metric over some objects, uid -> figures; metrics that none of them has are left out."""
    return _each_metric([objects[uid] for uid in among if uid in objects])


def differences(first: Mapping[str, Figures], second: Mapping[str, Figures], among: Sequence[str]) -> dict[str, Mean]:
    """Return the mean of first minus second, object by object: what they share, such as the object's difficulty, cancels."""
    return _each_metric([_minus(first[uid], second[uid]) for uid in among if uid in first and uid in second])


def _minus(first: Figures, second: Figures) -> dict[str, float | None]:
    result: dict[str, float | None] = {}
    for metric, value in first.items():
        other = second.get(metric)
        result[metric] = None if value is None or other is None else value - other
    return result


def _each_metric(objects: Sequence[Figures]) -> dict[str, Mean]:
    names = dict.fromkeys(name for figures in objects for name in figures)
    result = {}
    for name in names:
        found = mean_of([value for figures in objects if (value := figures.get(name)) is not None])
        if found is not None:
            result[name] = found
    return result
