"""The two baselines: by construction, and the project's own published figures on its validation objects."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.evaluation.baselines import input_repeated, search_training
from engine.evaluation.samples import OrbitKind, each_sample, read_samples
from engine.evaluation.statistics import differences, means
from engine.evaluation.views import measure_views
from engine.files import OrbitImages
from engine.multiview.orbits import KnownViews
from tests.engine.balls import ball_orbit

SHARDS = Path(__file__).parents[4] / "shared" / "data" / "orbits128"


@pytest.fixture(scope="module")
def one() -> OrbitImages:
    return ball_orbit(size=24, views=6)


def brighter(images: OrbitImages, by: int, uid: str, label: str = "") -> OrbitImages:
    rgba = images.rgba.copy()
    rgba[..., :3] = np.clip(rgba[..., :3].astype(int) + by, 0, 255)
    return replace(images, rgba=rgba, uid=uid, label=label)


def test_the_input_repeated(one: OrbitImages) -> None:
    repeated = input_repeated(one.rgba)
    assert repeated.shape == one.rgba.shape
    assert (repeated == one.rgba[0]).all()


def test_the_nearest_is_found_whatever_comes_before_and_after(one: OrbitImages) -> None:
    training = [brighter(one, 40, "far", "lamp"), brighter(one, 10, "near", "cup"), brighter(one, -25, "other")]
    for order in (training, training[::-1]):
        found = search_training({"x": one.rgba[0]}, order)
        assert (found.nearest["x"].uid, found.nearest["x"].start) == ("near", 0)
        assert (found.nearest["x"].rgba == training[1].rgba).all()
        assert (found.labels, found.uids) == ({"lamp", "cup"}, {"far", "near", "other"})
    seen = one.rgba[0].astype(float)
    expected = np.sqrt(np.mean(((training[1].rgba[0] - seen) * seen[..., 3:] / 255)[..., :3] ** 2)) / 255
    assert found.nearest["x"].rms == pytest.approx(expected, rel=1e-9)


def test_other_starts_are_tried_if_asked(one: OrbitImages) -> None:
    turned = replace(one, uid="turned", rgba=np.roll(one.rgba, 2, axis=0))
    stored = search_training({"x": one.rgba[0]}, [turned]).nearest["x"]
    assert stored.start == 0
    assert stored.rms > 0
    any_start = search_training({"x": one.rgba[0]}, [turned], "any").nearest["x"]
    assert (any_start.start, any_start.rms) == (2, 0.0)
    assert (any_start.rgba == one.rgba).all()


def test_no_object_is_its_own_neighbour(one: OrbitImages) -> None:
    found = search_training({"x": one.rgba[0]}, [replace(one, uid="x"), brighter(one, 60, "other")])
    assert found.nearest["x"].uid == "other"


def test_training_views_of_another_size_are_brought_to_ours(one: OrbitImages) -> None:
    found = search_training({"x": one.rgba[0]}, [replace(ball_orbit(size=48, views=6), uid="large")])
    assert found.nearest["x"].rgba.shape == one.rgba.shape
    assert found.nearest["x"].rms < 0.02  # two ways of averaging four pixels: traced, and resampled


@pytest.mark.slow
@pytest.mark.skipif(not SHARDS.is_dir(), reason=f"{SHARDS} is not here: the project's shared data")
def test_the_published_figures_of_the_validation_objects() -> None:
    kind = OrbitKind(KnownViews())
    truths = {images.uid: images for images in read_samples([str(SHARDS / "ring24-val-*.tar")], kind)}
    assert len(truths) == 50
    training = search_training({uid: t.rgba[0] for uid, t in truths.items()}, _training(kind))
    assert len(training.uids) == 582
    repeated = {uid: figures(input_repeated(t.rgba), t) for uid, t in truths.items()}
    nearest = {uid: figures(training.nearest[uid].rgba, t) for uid, t in truths.items()}
    # README of the data: 20.73 and 19.12 dB, rounded to two places
    assert means(repeated, list(truths))["psnr_db"].mean == pytest.approx(20.73, abs=0.005)
    assert means(nearest, list(truths))["psnr_db"].mean == pytest.approx(19.12, abs=0.005)
    assert differences(repeated, nearest, list(truths))["psnr_db"].count == 50
    assert sum(t.label not in training.labels for t in truths.values()) == 25  # half of them, says the README


def _training(kind: OrbitKind) -> Iterator[OrbitImages]:
    return each_sample([str(SHARDS / "ring24-train-*.tar")], kind)


def figures(made: np.ndarray, truth: OrbitImages) -> dict[str, float | None]:
    return {"psnr_db": measure_views(made, truth.rgba).novel.psnr_db}
