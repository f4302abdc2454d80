"""Hi3D's U-Net against the published code's outputs, and what training and saving ask of it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from engine.checkpoints.keys_hi3d import orbit_video_from_release
from engine.multiview.edm import sample_euler_edm
from engine.multiview.guidance import Guided, linear_scale, zeroed
from engine.multiview.networks.orbit_video import OrbitVideoUNet, conditioning_vector
from engine.multiview.networks.sinusoids import sinusoid
from engine.multiview.schedules import draw_noise, edm_sigmas

SMALL = {
    "down_block_types": ["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
    "up_block_types": ["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "num_attention_heads": [2, 4],
    "num_frames": 3,
}


def small(in_channels: int = 8, vector: int = 768) -> OrbitVideoUNet:
    """A network of two levels with random weights; diffusers initialises none with zeros here."""
    torch.manual_seed(0)
    return OrbitVideoUNet(**SMALL, in_channels=in_channels, projection_class_embeddings_input_dim=vector).eval()


def inputs(channels: int = 4, vector: int = 768, height: int = 8, width: int = 8) -> dict[str, Tensor]:
    return {
        "latents": draw_noise((2, 3, 4, height, width), 1),
        "timestep": torch.tensor([-1.2, 1.6]),
        "tokens": draw_noise((2, 1, 24), 2),
        "concatenated": draw_noise((2, 3, channels, height, width), 3),
        "vector": draw_noise((2, vector), 4),
    }


@pytest.fixture(scope="module")
def published(oracles: Path) -> Mapping[str, np.ndarray]:
    """Inputs and outputs of the published code, a batch of 2 with 4 views."""
    return dict(np.load(oracles / "hi3d_stage1_small.npz"))


@pytest.fixture(scope="module")
def network(oracles: Path) -> OrbitVideoUNet:
    """The published code's small network."""
    tensors = {key: value.float() for key, value in load_file(oracles / "hi3d_stage1_small.safetensors").items()}
    converted = orbit_video_from_release(tensors, head_dim=16)
    network = OrbitVideoUNet(**converted.config)
    network.load_state_dict(dict(converted.tensors))
    return network.eval()


def test_one_forward_is_the_published(network: OrbitVideoUNet, published: Mapping[str, np.ndarray]):
    given = {key: torch.from_numpy(value) for key, value in published.items()}
    stacked = given["x"].unflatten(0, (2, 4))
    with torch.no_grad():
        found = network(
            stacked[:, :, :4], given["timesteps"].view(2, 4), given["context"], stacked[:, :, 4:], given["y"]
        )
    # Asked for is 1e-4; 1e-5 also tells diffusers' group norm epsilon of 1e-6 from the trained 1e-5.
    error = (found.flatten(0, 1) - given["out"]).norm() / given["out"].norm()
    assert error < 1e-5


@pytest.mark.slow  # 50 forwards
def test_a_whole_sample_is_the_published(network: OrbitVideoUNet, published: Mapping[str, np.ndarray]):
    given = {key: torch.from_numpy(value) for key, value in published.items()}
    told = {
        "tokens": given["c_crossattn"],
        "concatenated": given["c_concat"][None],
        "vector": given["c_vector"],
    }
    guided = Guided(network, told, zeroed(told, ["tokens", "concatenated"]))
    found = sample_euler_edm(guided, given["noise"][None], edm_sigmas(), guidance_scale=linear_scale(1.0, 2.5, 4))
    error = (found[0] - given["sample"]).norm() / given["sample"].norm()
    assert error < 1e-5  # asked for is 1e-3


def test_the_vector_holds_aesthetic_elevation_and_augmentation():
    elevation, augmentation, score = torch.tensor([-10.0, 40.0]), torch.tensor([0.02, 0.0]), torch.tensor([5.5, 6.25])
    found = conditioning_vector(elevation, augmentation, score)
    assert found.shape == (2, 768)
    assert torch.equal(found[:, 0], score)
    assert torch.equal(found[:, 1:256], sinusoid(score * 100, 255))
    assert torch.equal(found[:, 256:512], sinusoid(elevation, 256))
    assert torch.equal(found[:, 512:], sinusoid(augmentation, 256))
    assert torch.equal(conditioning_vector(elevation, augmentation), found[:, 256:])


@pytest.mark.parametrize(("channels", "vector"), [(4, 768), (13, 512)])
def test_both_stages_use_all_that_they_are_told(channels: int, vector: int):
    network, given = small(4 + channels, vector), inputs(channels, vector)
    with torch.no_grad():
        found = network(**given)
        assert found.shape == given["latents"].shape
        for name, value in given.items():
            other = network(**{**given, name: value + 0.5})
            assert (other - found).abs().max() > 1e-3, f"{name} has no effect"


def test_one_time_for_all_views_is_the_same_time_for_each():
    network, given = small(), inputs()
    with torch.no_grad():
        found = network(**given)
        for_each = network(**{**given, "timestep": given["timestep"][:, None].expand(2, 3)})
        one_differs = network(**{**given, "timestep": given["timestep"][:, None] + torch.tensor([[0.0, 1.0, 0.0]])})
    assert torch.equal(found, for_each)
    assert (found - one_differs).abs().max() > 1e-3


def test_objects_of_a_batch_do_not_mix():
    network, given = small(), inputs()
    with torch.no_grad():
        both = network(**given)
        second = network(**{name: value[1:] for name, value in given.items()})
    torch.testing.assert_close(both[1:], second, rtol=0, atol=1e-5)  # float32, other blocking of the products


def test_sizes_that_do_not_halve_are_taken():
    assert small()(**inputs(height=9, width=7)).shape == (2, 3, 4, 9, 7)


def test_it_runs_in_half_precision():
    given = inputs()
    with torch.no_grad():
        expected = small()(**given)
        half = {name: value if name == "timestep" else value.bfloat16() for name, value in given.items()}
        found = small().bfloat16()(**half)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.05 * expected.norm()  # three digits through some thirty layers


def test_gradient_checkpoints_keep_less_and_change_nothing():
    """What autograd keeps besides the inputs of the checkpointed layers."""

    def run(checkpointed: bool) -> tuple[float, list[Tensor], int]:
        network = small().train()
        if checkpointed:
            network.enable_gradient_checkpointing()
        kept = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(**inputs()).square().mean()
        loss.backward()
        return loss.item(), [parameter.grad for parameter in network.parameters() if parameter.grad is not None], kept

    plain, saved = run(False), run(True)
    assert saved[0] == plain[0]
    assert len(saved[1]) == len(plain[1]) == len(list(small().parameters()))
    for one, other in zip(saved[1], plain[1], strict=True):
        torch.testing.assert_close(one, other)
    assert saved[2] < 0.1 * plain[2]  # diffusers' own keeps half: all of the attention over views


def test_saved_is_loaded(tmp_path: Path):
    network = small(17, 512)
    network.save_pretrained(tmp_path)
    loaded = OrbitVideoUNet.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**inputs(13, 512)), network(**inputs(13, 512)))
    assert loaded.config.num_frames == 3
