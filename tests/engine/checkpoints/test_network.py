"""A released file becomes a network that computes what the published code computes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.checkpoints.assemble import Choices
from engine.checkpoints.network import released_network
from engine.errors import CheckpointError

ORACLES = Path(__file__).parents[3] / ".." / "shared" / "oracles"
needs_oracles = pytest.mark.skipif(
    not ORACLES.is_dir(), reason="the published code's outputs are not beside the repository"
)
SMALL = Choices(head_dim=16)


def largest_relative_error(made: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.abs(made.detach().numpy() - expected).max() / np.abs(expected).max())


@needs_oracles
@torch.no_grad()
def test_videomv() -> None:
    network = released_network(ORACLES / "videomv_t2v_small.safetensors", choices=SMALL)
    case = {name: torch.from_numpy(value) for name, value in np.load(ORACLES / "videomv_t2v_small.npz").items()}
    made = network(case["x"].transpose(1, 2), case["t"], case["y"], case["camera_data"]).transpose(1, 2)
    assert largest_relative_error(made, case["out"].numpy()) < 1e-4  # float32 sums in another order


@needs_oracles
@torch.no_grad()
def test_hi3d() -> None:
    network = released_network(ORACLES / "hi3d_stage1_small.safetensors", choices=SMALL)
    case = {name: torch.from_numpy(value) for name, value in np.load(ORACLES / "hi3d_stage1_small.npz").items()}
    views = int(case["num_video_frames"])
    latents, concatenated = case["x"].unflatten(0, (-1, views)).split(4, dim=2)
    times = case["timesteps"].unflatten(0, (-1, views))
    made = network(latents, times, case["context"], concatenated, case["y"])
    assert largest_relative_error(made.flatten(0, 1), case["out"].numpy()) < 1e-4


@needs_oracles
@torch.no_grad()
def test_lgm_and_the_autoencoder() -> None:
    lgm = np.load(ORACLES / "lgm_small.npz")
    network = released_network(ORACLES / "lgm_small.safetensors")
    made = network(torch.from_numpy(lgm["input"])).flatten(0, 1)
    assert largest_relative_error(made, lgm["raw14"]) < 1e-4
    vae = np.load(ORACLES / "vae_small.npz")
    autoencoder = released_network(ORACLES / "vae_small.safetensors")
    assert largest_relative_error(autoencoder.decode(torch.from_numpy(vae["z"])).sample, vae["decoded"]) < 1e-4


@needs_oracles
def test_what_is_not_in_it_is_said() -> None:
    with pytest.raises(CheckpointError, match="holds no reconstructor of videomv; in it: unet"):
        released_network(ORACLES / "videomv_t2v_small.safetensors", component="reconstructor", choices=SMALL)
