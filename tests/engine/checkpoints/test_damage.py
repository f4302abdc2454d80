"""Every key map, with one tensor too few, too many, or of another shape; and in the types that files have."""

from collections.abc import Callable, Mapping
from functools import partial

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from engine.checkpoints.converted import Converted
from engine.checkpoints.keys_aesthetic import aesthetic_from_release, aesthetic_to_release
from engine.checkpoints.keys_clip import text_from_release, text_to_release, vision_from_release, vision_to_release
from engine.checkpoints.keys_dpt import dpt_from_release, dpt_to_release
from engine.checkpoints.keys_hi3d import orbit_video_from_release, orbit_video_to_release
from engine.checkpoints.keys_lgm import lgm_from_release, lgm_to_release
from engine.checkpoints.keys_vae import vae_from_release, vae_to_release
from engine.checkpoints.keys_videomv import image_orbit_from_release, text_orbit_from_release, videomv_to_release
from engine.checkpoints.prefixes import (
    AESTHETIC_CLIP,
    AESTHETIC_MLP,
    AUTOENCODER,
    HI3D_AESTHETIC,
    HI3D_CLIP,
    HI3D_DEPTH,
    HI3D_UNET,
    RECONSTRUCTOR,
)
from engine.errors import CheckpointError
from engine.multiview.networks.orbit_video import OrbitVideoUNet
from engine.splats.reconstructor import CONFIGS, GaussianUNet
from tests.engine.checkpoints.released_clip import ReleasedClip
from tests.engine.checkpoints.released_dpt import ReleasedDpt
from tests.engine.checkpoints.test_keys_aesthetic import embedder
from tests.engine.multiview.networks.small import small_image_orbit, small_text_orbit

State = dict[str, Tensor]
SAMPLED = 7
"""How many tensors of each network are damaged, spread over it."""


def _orbit_video() -> nn.Module:
    return OrbitVideoUNet(
        down_block_types=["CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"],
        up_block_types=["UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"],
        block_out_channels=[32, 64], layers_per_block=1, cross_attention_dim=24, num_attention_heads=[2, 4],
    )  # fmt: skip


def _vae() -> nn.Module:
    return AutoencoderKL(
        block_out_channels=[32, 64], layers_per_block=1,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
    )  # fmt: skip


def _text() -> State:
    state = ReleasedClip().state_dict()
    return text_to_release(text_from_release(state, head_dim=16, layers_skipped=0).tensors)


def _vision() -> State:
    return vision_to_release(vision_from_release(ReleasedClip().state_dict(), head_dim=16).tensors)


def _aesthetic() -> State:
    converted = aesthetic_from_release(embedder(ReleasedClip()).state_dict(), head_dim=16)
    return aesthetic_to_release(converted.tensors)


def _dpt() -> State:
    return dpt_to_release(dpt_from_release(ReleasedDpt().state_dict(), head_dim=16, groups=4).tensors)


MAPS: Mapping[str, tuple[Callable[[], State], Callable[[State], Converted], Callable[[State, str], State], str]] = {
    "text U-Net": (
        lambda: videomv_to_release(small_text_orbit().state_dict()),
        partial(text_orbit_from_release, head_dim=8), videomv_to_release, "",
    ),
    "image U-Net": (
        lambda: videomv_to_release(small_image_orbit().state_dict()),
        partial(image_orbit_from_release, head_dim=8), videomv_to_release, "",
    ),
    "Hi3D": (
        lambda: orbit_video_to_release(_orbit_video().state_dict()),
        partial(orbit_video_from_release, head_dim=16), orbit_video_to_release, HI3D_UNET,
    ),
    "autoencoder": (lambda: vae_to_release(_vae().state_dict()), vae_from_release, vae_to_release, AUTOENCODER),
    "LGM": (
        lambda: dict(GaussianUNet(**CONFIGS["test"]).state_dict()),
        partial(lgm_from_release, input_size=32), lgm_to_release, RECONSTRUCTOR,
    ),
    "CLIP's text": (_text, partial(text_from_release, head_dim=16, layers_skipped=0), text_to_release, HI3D_CLIP),
    "CLIP's vision": (_vision, partial(vision_from_release, head_dim=16), vision_to_release, HI3D_CLIP),
    "aesthetic": (_aesthetic, partial(aesthetic_from_release, head_dim=16), aesthetic_to_release, HI3D_AESTHETIC),
    "MiDaS": (_dpt, partial(dpt_from_release, head_dim=16, groups=4), dpt_to_release, HI3D_DEPTH),
}  # fmt: skip
each = pytest.mark.parametrize("name", MAPS)


def sampled(tensors: State) -> list[str]:
    keys = sorted(tensors)
    return keys[:: max(len(keys) // SAMPLED, 1)]


def refusal(convert: Callable[[State], Converted], tensors: State) -> str:
    with pytest.raises(CheckpointError) as caught:
        convert(tensors)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@each
def test_one_tensor_too_few_or_too_many_is_named(name: str) -> None:
    make, convert, _, _ = MAPS[name]
    tensors = make()
    for key in sampled(tensors):
        assert named(key) in refusal(convert, {k: v for k, v in tensors.items() if k != key})
        assert named(key) + ".lora_a" in refusal(convert, tensors | {key + ".lora_a": torch.zeros(2)})


@each
def test_another_shape_is_said_with_the_one_expected(name: str) -> None:
    """Of tensors from which no size is read: biases and norms."""
    make, convert, _, _ = MAPS[name]
    tensors = make()
    for key in sampled({k: v for k, v in tensors.items() if v.ndim == 1}):
        expected, wrong = tuple(tensors[key].shape), torch.zeros(tensors[key].numel() + 1)
        words = refusal(convert, tensors | {key: wrong})
        assert f"{named(key)} must have shape {expected}, has {tuple(wrong.shape)}; is it" in words


@each
def test_half_precision_keeps_its_numbers_behind_the_prefix_and_back(name: str) -> None:
    """Also: no two tensors share memory, so that each can be written and changed alone."""
    make, convert, to_release, prefix = MAPS[name]
    for dtype in (torch.float16, torch.bfloat16):
        released = {key: tensor.to(dtype) for key, tensor in make().items()}
        found = convert({prefix + key: tensor for key, tensor in released.items()}).tensors
        assert {tensor.dtype for tensor in found.values()} == {dtype}
        assert len({tensor.untyped_storage().data_ptr() for tensor in found.values()}) == len(found)
        again = to_release(found, prefix)
        assert again.keys() == {prefix + key for key in released}
        assert all(torch.equal(again[prefix + key], tensor) for key, tensor in released.items())


def named(key: str) -> str:
    """As errors name it: the two parts of the aesthetic score speak for themselves."""
    return key.removeprefix(AESTHETIC_CLIP).removeprefix(AESTHETIC_MLP)


def test_going_back_asks_for_all_that_was_stacked() -> None:
    tensors = text_from_release(_text(), head_dim=16, layers_skipped=0).tensors
    lacking = {key: tensor for key, tensor in tensors.items() if key != "encoder.layers.1.self_attn.q_proj.bias"}
    with pytest.raises(
        CheckpointError, match=r"CLIP's text encoder: lacks encoder\.layers\.1\.self_attn\.q_proj\.bias"
    ):
        text_to_release(lacking)
