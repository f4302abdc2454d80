"""What a forward pass needs, against what can be counted by hand and against published figures."""

import pytest
import torch
from torch import nn

from engine.multiview.footprint import footprint
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet

GIB = 2**30


def test_a_network_counted_by_hand() -> None:
    with torch.device("meta"):
        network = nn.Sequential(nn.Linear(64, 256, bias=False), nn.ReLU(), nn.Linear(256, 32, bias=False))
        x = torch.empty(10, 64)
    found = footprint(network, lambda: network(x))
    assert found.parameters == 64 * 256 + 256 * 32
    assert found.weight_bytes == 4 * found.parameters
    assert found.flop == 2 * 10 * found.parameters
    # The first layer's output and the ReLU's live side by side; the second's replaces the first.
    assert found.peak_activation_bytes == 4 * 10 * (256 + 256)


def test_attention_is_counted_as_fused() -> None:
    with torch.device("meta"):
        network = nn.Identity()
        query = torch.empty(2, 4, 1000, 16)
    found = footprint(network, lambda: nn.functional.scaled_dot_product_attention(query, query, query))
    assert found.flop == 2 * 2 * 4 * 1000 * 1000 * (16 + 16)
    assert found.peak_activation_bytes == 4 * query.numel()  # the output alone: no 1000 x 1000 scores


def test_weights_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match="meta device"):
        footprint(nn.Linear(2, 2), lambda: None)


@pytest.mark.slow
def test_videomv_needs_the_arithmetic_that_others_counted() -> None:
    with torch.device("meta"):
        network = TextOrbitUNet().to("meta", torch.bfloat16).eval()
        given = {
            "latents": torch.empty(1, 24, 4, 32, 32, dtype=torch.bfloat16), "timestep": torch.empty(1),
            "text": torch.empty(1, 77, 1024, dtype=torch.bfloat16),
            "cameras": torch.empty(1, 24, 16, dtype=torch.bfloat16),
        }  # fmt: skip
    found = footprint(network, lambda: network(**given))
    assert found.flop / 1e12 == pytest.approx(7.34, abs=0.01)  # counted for diffusers' network of this size


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "chunked", "activations_gib"), [(2, False, 9.0), (1, True, 2.5)])
def test_hi3ds_second_stage_fits_24_gb(batch: int, chunked: bool, activations_gib: float) -> None:
    with torch.device("meta"):
        network = OrbitVideoUNet(in_channels=17, projection_class_embeddings_input_dim=512)
        network = network.to("meta", torch.bfloat16).eval()
        given = {
            "latents": torch.empty(batch, 16, 4, 128, 128), "timestep": torch.empty(batch),
            "tokens": torch.empty(batch, 1, 1024), "concatenated": torch.empty(batch, 16, 13, 128, 128),
            "vector": torch.empty(batch, 512),
        }  # fmt: skip
        given = {name: tensor.to(torch.bfloat16) for name, tensor in given.items()}
    if chunked:
        network.enable_forward_chunking(1)
    found = footprint(network, lambda: network(**given))
    assert found.flop / 1e12 == pytest.approx(104.7 * batch, abs=0.2)  # counted for SVD at this size
    assert found.peak_activation_bytes / GIB < activations_gib
    assert (found.weight_bytes + found.peak_activation_bytes) / GIB < 22  # 24 GB less a context and workspaces
