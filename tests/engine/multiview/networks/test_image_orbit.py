"""The image U-Net: its input stages against a plain reference under the released names, the rest against diffusers.

The reference is written from the description of the published UNetSD_I2VGen: which maps stand beside the noisy
latents, which tokens cross-attention sees in which order, what is added to the time.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
from torch import Tensor, nn

from engine.checkpoints.keys_videomv import videomv_to_release
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.sizes import TINY_UNET
from tests.engine.multiview.networks.small import CONTEXT, SIZES, inputs, small_image_orbit
from tests.engine.multiview.networks.test_text_orbit import FLOAT32, relative

Weights = dict[str, Tensor]


def released(network: ImageOrbitUNet) -> Weights:
    """The network's weights under the released names."""
    return videomv_to_release(network.state_dict())


def convolved(w: Weights, name: str, x: Tensor, stride: int = 1) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=stride, padding=1)


def perceptron(w: Weights, name: str, x: Tensor) -> Tensor:
    hidden = F.silu(F.linear(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"]))
    return F.linear(hidden, w[f"{name}.2.weight"], w[f"{name}.2.bias"])


def encoded(value: Tensor, width: int) -> Tensor:
    """Cosines, then sines."""
    angles = value.float()[:, None] * 10000.0 ** (-torch.arange(width // 2) / (width // 2))
    return torch.cat([torch.cos(angles), torch.sin(angles)], 1)


def transformed(w: Weights, x: Tensor) -> Tensor:
    """The tiny transformer along the views: [sequences, views, 4], 2 heads of 4."""
    first, second = "local_temporal_encoder.layers.0.0", "local_temporal_encoder.layers.0.1.net"
    normed = F.layer_norm(x, (4,), w[f"{first}.norm.weight"], w[f"{first}.norm.bias"])
    qkv = normed @ w[f"{first}.fn.to_qkv.weight"].T
    attended = []
    for head in range(2):
        q, k, v = (qkv[..., part * 8 + head * 4 : part * 8 + head * 4 + 4] for part in range(3))
        attended.append(torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1) @ v)  # 2 = sqrt of the head's width
    x = x + F.linear(torch.cat(attended, -1), w[f"{first}.fn.to_out.0.weight"], w[f"{first}.fn.to_out.0.bias"])
    hidden = F.gelu(F.linear(x, w[f"{second}.0.0.weight"], w[f"{second}.0.0.bias"]))
    return x + F.linear(hidden, w[f"{second}.2.weight"], w[f"{second}.2.bias"])


def reference_maps(w: Weights, image_latents: Tensor, views: int) -> Tensor:
    """[b, n, 4, h, w]: the picture and the planes, convolved, transformed, added twice."""
    planes = [torch.full_like(image_latents, (position + 1) / (views - 1)) for position in range(views - 1)]
    maps = []
    for frame in (image_latents, *planes):
        hidden = F.silu(convolved(w, "local_image_concat.0", frame))
        hidden = F.silu(convolved(w, "local_image_concat.2", hidden))
        maps.append(convolved(w, "local_image_concat.4", hidden))
    stacked = torch.stack(maps, 1)
    out = torch.empty_like(stacked)
    for row in range(stacked.shape[-2]):
        for column in range(stacked.shape[-1]):
            out[..., row, column] = transformed(w, stacked[..., row, column])
    return out + out


def reference_context(w: Weights, given: dict[str, Tensor]) -> Tensor:
    """[b, 7 + 64 + 4, d]: text, places of the picture's latents, CLIP embedding."""
    hidden = F.silu(convolved(w, "local_image_embedding.0", given["image_latents"]))
    hidden = F.adaptive_avg_pool2d(hidden, (32, 32))
    hidden = F.silu(convolved(w, "local_image_embedding.3", hidden, stride=2))
    local = convolved(w, "local_image_embedding.5", hidden, stride=2)
    places = [local[:, :, row, column] for row in range(8) for column in range(8)]
    clip = perceptron(w, "context_embedding", given["image_embedding"][:, 0])
    tokens = [clip[:, index * CONTEXT : (index + 1) * CONTEXT] for index in range(4)]
    return torch.cat([given["text"], torch.stack(places, 1), torch.stack(tokens, 1)], 1)


def reference_embedding(w: Weights, given: dict[str, Tensor]) -> Tensor:
    """[b, n, e]: time, 8 frames a second, and each view's camera."""
    time = perceptron(w, "time_embed", encoded(given["timestep"], 32))
    fps = perceptron(w, "fps_embedding", encoded(torch.tensor([8, 8]), 32))
    return (time + fps)[:, None] + perceptron(w, "camera_embedding", given["cameras"])


def seen_by_the_trunk(network: ImageOrbitUNet, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """What reaches the first convolution and the blocks in a call of the network."""
    seen: dict[str, Tensor] = {}

    def first(_: nn.Module, args: tuple[Tensor]) -> None:
        seen["pictures"] = args[0]

    def middle(_: nn.Module, args: tuple[Tensor, Tensor], kwargs: dict[str, Tensor]) -> None:
        seen["embedding"], seen["context"] = args[1], kwargs["encoder_hidden_states"]

    network.conv_in.register_forward_pre_hook(first)
    network.mid_block.register_forward_pre_hook(middle, with_kwargs=True)
    with torch.no_grad():
        network(**given)
    return seen


@pytest.mark.parametrize("views", [2, 5])
def test_the_trunk_is_given_what_the_published_code_gives_it(views: int):
    network, given = small_image_orbit(), inputs(views)
    weights, seen = released(network), seen_by_the_trunk(network, given)
    pictures = torch.cat([given["latents"], reference_maps(weights, given["image_latents"], views)], 2)
    context = reference_context(weights, given)
    assert context.shape == (2, 7 + 64 + 4, CONTEXT)
    assert relative(seen["pictures"], pictures.flatten(0, 1)) < FLOAT32
    assert relative(seen["context"], context.repeat_interleave(views, 0)) < FLOAT32
    assert relative(seen["embedding"], reference_embedding(weights, given).flatten(0, 1)) < FLOAT32


@pytest.mark.parametrize("views", [1, 3])
def test_with_maps_added_once_and_no_cameras_it_is_diffusers_network(views: int):
    """diffusers adds the maps once, and wants the planes made for it."""
    network, given = small_image_orbit(image_latents_gain=1), inputs(views)
    theirs = I2VGenXLUNet(**SIZES).eval()
    theirs.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("camera_")})
    planes = [torch.full_like(given["image_latents"], (i + 1) / max(views - 1, 1)) for i in range(views - 1)]
    with torch.no_grad():
        found = network(**{**given, "cameras": None})
        expected = theirs(
            given["latents"].transpose(1, 2),
            given["timestep"],
            fps=torch.tensor([8, 8]),
            image_latents=torch.stack([given["image_latents"], *planes], 2),
            image_embeddings=given["image_embedding"],
            encoder_hidden_states=given["text"],
        ).sample
    assert relative(found, expected.transpose(1, 2)) < FLOAT32


def test_the_released_maps_count_twice():
    """And it matters: a gain of 1 predicts something else."""
    assert small_image_orbit().config.image_latents_gain == 2.0
    given = inputs()
    with torch.no_grad():
        twice, once = small_image_orbit()(**given), small_image_orbit(image_latents_gain=1.0)(**given)
    assert relative(once, twice) > 1e-3  # far above float32's noise


def test_it_is_saved_and_loaded(tmp_path: Path):
    network, given = small_image_orbit(temporal_in_heads=2, fps=6, image_latents_gain=1.5), inputs()
    network.save_pretrained(tmp_path)
    loaded = ImageOrbitUNet.from_pretrained(tmp_path)
    assert (loaded.config.temporal_in_heads, loaded.config.fps, loaded.config.image_latents_gain) == (2, 6, 1.5)
    with torch.no_grad():
        assert torch.equal(loaded(**given), network(**given))


def test_latents_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"latents must have shape \(objects, views, 4, height, width\)"):
        small_image_orbit()(
            **{**inputs(), "latents": torch.zeros(2, 3, 3, 8, 8), "image_latents": torch.zeros(2, 3, 8, 8)}
        )


def test_options_of_small_networks() -> None:
    """Other latents than Stable Diffusion's, the picture beside every view; saved and read alike."""
    torch.manual_seed(0)
    unet = ImageOrbitUNet(**{**TINY_UNET, "in_channels": 8, "out_channels": 8}, picture_copies=2, token_positions=True)
    unet.eval()
    given = {
        "latents": torch.randn(1, 3, 8, 8, 8), "timestep": torch.tensor([500]), "text": torch.randn(1, 77, 32),
        "image_embedding": torch.randn(1, 1, 32), "image_latents": torch.randn(1, 8, 8, 8),
        "cameras": torch.randn(1, 3, 16),
    }  # fmt: skip
    made = unet(**given)
    assert made.shape == given["latents"].shape
    assert unet.conv_in.in_channels == 4 * 8  # noisy, maps, the picture, its mirror image
    with torch.no_grad():
        unet.token_places += 1.0
    assert not torch.equal(unet(**given), made)
