"""Released names of the autoencoder: true size, prefixes, linear attention, and files of something else."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.keys_vae import vae_from_release, vae_to_release
from engine.errors import CheckpointError


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


@pytest.fixture
def released(oracles: Path) -> dict[str, Tensor]:
    return load_file(oracles / "vae_small.safetensors")


def test_every_released_tensor_has_its_place(true_keys: dict[str, dict[str, Tensor]]):
    names = true_keys["sd_vae"]
    converted = vae_from_release(names)
    with torch.device("meta"):
        vae = AutoencoderKL(**converted.config)
    vae.load_state_dict(converted.tensors, assign=True)
    assert round(sum(p.numel() for p in vae.parameters()) / 1e6, 2) == 83.65
    assert vae.config.block_out_channels == [128, 256, 512, 512]
    assert shapes(vae_to_release(converted.tensors)) == shapes(names)


def test_names_come_back_with_their_prefix(released: dict[str, Tensor]):
    again = vae_to_release(vae_from_release(released).tensors, "first_stage_model.")
    assert shapes(again) == {f"first_stage_model.{key}": shape for key, shape in shapes(released).items()}
    assert all(torch.equal(again[f"first_stage_model.{key}"], value) for key, value in released.items())


def test_it_is_found_in_a_larger_file(released: dict[str, Tensor]):
    """As the release's own loader does: keys under the prefix alone count."""
    larger = {f"first_stage_model.{key}": value for key, value in released.items()}
    larger["model.diffusion_model.out.0.bias"] = torch.zeros(3)
    found, expected = vae_from_release(larger), vae_from_release(released)
    assert found.config == expected.config
    assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items())


def test_attention_may_be_convolutions_or_linear_already(released: dict[str, Tensor]):
    linear = {
        key: value.flatten(1) if ".attn_1." in key and value.ndim == 4 else value for key, value in released.items()
    }
    assert shapes(linear) != shapes(released)
    found, expected = vae_from_release(linear), vae_from_release(released)
    assert all(torch.equal(found.tensors[key], value) for key, value in expected.tensors.items())
    assert expected.tensors["encoder.mid_block.attentions.0.to_q.weight"].ndim == 2


def test_other_files_are_refused_with_the_keys_names(released: dict[str, Tensor]):
    def refused(message: str, **changes: Tensor | None) -> None:
        tensors = released | {key.replace("__", "."): value for key, value in changes.items()}
        with pytest.raises(CheckpointError, match=message):
            vae_from_release({key: value for key, value in tensors.items() if value is not None})

    refused("lacks encoder.conv_in.weight, found", encoder__conv_in__weight=None)
    refused(
        r"decoder.mid.attn_1.q.weight must have shape \(64, 64, 1, 1\), has \(32, 64, 1, 1\)",
        decoder__mid__attn_1__q__weight=torch.zeros(32, 64, 1, 1),
    )
    with pytest.raises(CheckpointError, match=r"lacks encoder\.conv_in\.weight, found nothing"):
        vae_from_release({})
