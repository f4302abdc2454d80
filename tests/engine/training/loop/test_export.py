"""What a run hands out: complete folders of weights."""

import json
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.checkpoints.layout import WeightsIndex, read_index, write_index
from engine.training.loop.export import origins_of
from engine.training.loop.run import train
from engine.training.loop.settings import LoopSettings
from tests.engine.training.loop.toys import TOYS, ToyTask, toy_recipe

CPU = LoopSettings(device="cpu")


def tiny_vae(seed: int) -> AutoencoderKL:
    """An autoencoder of some hundred numbers."""
    torch.manual_seed(seed)
    return AutoencoderKL(block_out_channels=(8,), layers_per_block=1, norm_num_groups=4)


class WithVae(ToyTask):
    """Uses an autoencoder that it does not train, and says so."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.frozen = {"vae": vae}

    def index(self) -> WeightsIndex:
        return WeightsIndex("videomv", {"unet": "TextOrbitUNet", "vae": "AutoencoderKL"}, {"latent_scaling": 0.5})


def start(folder: Path, vae: AutoencoderKL) -> Path:
    """A folder of weights to start from, with one component more than the task knows."""
    for name in ("vae", "refiner"):
        vae.save_pretrained(folder / name)
    write_index(folder, WeightsIndex("videomv", {"vae": "AutoencoderKL", "refiner": "AutoencoderKL"}, {"old": 1}))
    (folder / "sources.json").write_text(json.dumps({"sources": {}, "files": {}, "how": {}, "licences": []}))
    return folder


def same(folder: Path, vae: AutoencoderKL) -> bool:
    """Whether a folder's vae is this one."""
    found = AutoencoderKL.from_pretrained(folder / "vae").state_dict()
    return all(torch.equal(found[name], tensor) for name, tensor in vae.state_dict().items())


def test_what_was_used_but_not_trained_is_in_the_folder(tmp_path):
    vae = tiny_vae(1)
    train(WithVae(vae), TOYS, toy_recipe(steps=1), tmp_path / "run", CPU)
    weights = tmp_path / "run" / "weights"
    assert set(read_index(weights).components) == {"unet", "vae"}
    assert read_index(weights).settings == {"latent_scaling": 0.5}
    assert same(weights, vae)


def test_what_came_from_a_folder_is_linked_from_there(tmp_path):
    vae = tiny_vae(2)
    origin = start(tmp_path / "start", vae)
    train(WithVae(vae), TOYS, toy_recipe(steps=1), tmp_path / "run", CPU, origins=origins_of(origin, {}))
    weights = tmp_path / "run" / "weights"
    assert set(read_index(weights).components) == {"unet", "vae", "refiner"}
    assert same(weights, vae)
    (file,) = (weights / "vae").glob("*.safetensors")
    assert file.stat().st_ino == (origin / "vae" / file.name).stat().st_ino  # no second copy
    assert (weights / "sources.json").is_file()
    assert "started from: start" in (weights / "README.md").read_text()


def test_what_lies_beside_the_start_is_brought_in(tmp_path):
    """The mini family's pipelines share networks, `../vae`; a run's folder stands alone."""
    vae = tiny_vae(6)
    vae.save_pretrained(tmp_path / "vae")
    (tmp_path / "pipeline").mkdir()
    write_index(tmp_path / "pipeline", WeightsIndex("videomv", {"vae": "AutoencoderKL"}, {}, {"vae": "../vae"}))
    origins = origins_of(tmp_path / "pipeline", {})
    train(WithVae(vae), TOYS, toy_recipe(steps=1), tmp_path / "run", CPU, origins=origins)
    assert same(tmp_path / "run" / "weights", vae)
    assert not read_index(tmp_path / "run" / "weights").folders


def test_a_part_from_elsewhere_wins(tmp_path):
    usual, other = tiny_vae(3), tiny_vae(4)
    origins = origins_of(start(tmp_path / "start", usual), {"vae": start(tmp_path / "other", other)})
    train(WithVae(other), TOYS, toy_recipe(steps=1), tmp_path / "run", CPU, origins=origins)
    assert same(tmp_path / "run" / "weights", other)
    assert set(read_index(tmp_path / "run" / "weights").components) == {"unet", "vae", "refiner"}


@pytest.mark.parametrize("moment", ["weights", "best"])
def test_a_card_says_what_was_done(tmp_path, moment):
    train(WithVae(tiny_vae(5)), TOYS, toy_recipe(steps=2), tmp_path, CPU)
    card = (tmp_path / moment / "README.md").read_text()
    assert "made by `turntable train vae`: A toy." in card
    assert "- trained: unet; averaged with decay 0.9" in card
    assert "- updates: 2 of 4 clips (8 clips)" in card
    assert "| loss | " in card
