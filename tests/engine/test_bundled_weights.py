"""The weights that come with Turntable: whole, small enough, and of some use."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints.layout import read_index
from engine.evaluation.images import over_white, psnr_db
from engine.geometry import RING16, RING24
from engine.multiview.load import load_pipeline
from engine.multiview.orbits import OrbitRequest
from engine.multiview.pictures import Picture
from engine.multiview.settings import Sampling
from engine.multiview.weights import weights_for
from engine.presets import PRESETS
from engine.training.family import TREE, history
from tests.engine.training.test_family import photographed

LIMIT_BYTES = 64_000_000
BUNDLED = [
    (preset.name, source)
    for preset in PRESETS.values()
    for source, folder in preset.bundled.items()
    if (TREE / folder / "model_index.json").is_file()
]


def test_the_tree_holds_little_enough(repository: Path) -> None:
    weights = [path for path in repository.rglob("*.safetensors") if ".venv" not in path.parts]
    assert sum(path.stat().st_size for path in weights if "outputs" not in path.parts) <= LIMIT_BYTES


def test_there_is_something_to_start_with() -> None:
    assert ("mini", "picture") in BUNDLED


@pytest.mark.parametrize(("name", "source"), BUNDLED)
def test_they_load_and_were_measured(name: str, source: str) -> None:
    folder = weights_for(PRESETS[name], source, None)
    load_pipeline(PRESETS[name], source, folder, dtype=torch.float32, device="cpu")
    measured = {stage for stage, told in history().items() if told["measured"].get("loss", 0) > 0}
    assert "vae" in measured
    for place in read_index(Path(folder)).folders.values():
        assert (Path(folder) / place / "config.json").is_file()


@pytest.mark.slow
def test_a_picture_becomes_an_orbit_of_its_object() -> None:
    """The first view is the picture, the second looks like it, and the object stands in all views."""
    truth = photographed("blobs", RING24.orbit(15.0, 128, 128), 3)
    folder = weights_for(PRESETS["mini"], "picture", None)
    pipeline = load_pipeline(PRESETS["mini"], "picture", folder, dtype=torch.float32, device="cpu")
    made = pipeline(
        picture=Picture(truth.rgba[0]), orbit=OrbitRequest(elevation_deg=15.0),
        sampling=Sampling(steps=4, framing="kept", refinement="off"),
    ).images  # fmt: skip
    np.testing.assert_array_equal(made.rgba[0], truth.rgba[0])
    second = psnr_db(over_white(made.rgba[1]), over_white(truth.rgba[1]))
    empty = psnr_db(np.ones((128, 128, 3)), over_white(truth.rgba[1]))
    assert second > empty + 3
    covered = (made.rgba[..., 3] > 127).mean((1, 2))
    true_cover = (truth.rgba[..., 3] > 127).mean()
    assert (covered > 0.3 * true_cover).all()
    assert (covered < 3 * true_cover).all()


@pytest.mark.slow
@pytest.mark.skipif(("mini-hi3d", "picture") not in BUNDLED, reason="Hi3D's small weights are not trained yet")
def test_hi3d_makes_an_orbit_and_refines_it() -> None:
    """At twice the size, near what the first stage made, and every view shows the object."""
    truth = photographed("blobs", RING16.orbit(15.0, 256, 256), 3)
    folder = weights_for(PRESETS["mini-hi3d"], "picture", None)
    pipeline = load_pipeline(PRESETS["mini-hi3d"], "picture", folder, dtype=torch.float32, device="cpu")
    small, large = (
        pipeline(
            picture=Picture(truth.rgba[0]), orbit=OrbitRequest(elevation_deg=15.0),
            sampling=Sampling(framing="kept", second_stage=refined),
        ).images
        for refined in (False, True)
    )  # fmt: skip
    assert (small.rgba.shape, large.rgba.shape) == ((16, 128, 128, 4), (16, 256, 256, 4))
    np.testing.assert_array_equal(large.rgba[0], truth.rgba[0])
    halved = over_white(large.rgba[1:]).reshape(15, 128, 2, 128, 2, 3).mean((2, 4))
    assert min(psnr_db(*pair) for pair in zip(halved, over_white(small.rgba[1:]), strict=True)) > 20
    second = psnr_db(over_white(large.rgba[1]), over_white(truth.rgba[1]))
    assert second > psnr_db(np.ones((256, 256, 3)), over_white(truth.rgba[1])) + 3
