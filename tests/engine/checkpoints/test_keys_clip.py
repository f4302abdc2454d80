"""CLIP's published names become transformers'; both compute the same."""

import pytest
import torch
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig, CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPTextModel, CLIPVisionModelWithProjection

from engine.checkpoints.keys_clip import (
    text_from_release,
    text_to_release,
    vision_from_release,
    vision_to_release,
)
from engine.checkpoints.prefixes import HI3D_CLIP
from engine.errors import CheckpointError
from tests.engine.checkpoints.released_clip import QuickGelu, ReleasedClip, openai_l, openclip_h, randomised

TOLERANCE = 1e-4
"""Relative to the largest output: two orders of float32 additions; a wrong head, activation or block is over 1e-2."""


def difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.fixture(scope="module")
def released() -> ReleasedClip:
    return randomised(ReleasedClip())


def test_text_gives_the_penultimate_tokens(released: ReleasedClip) -> None:
    converted = text_from_release(released.state_dict(), head_dim=16)
    model = CLIPTextModel(CLIPTextConfig(**converted.config)).eval()
    model.load_state_dict(converted.tensors)
    tokens = torch.randint(0, 50, (3, 77), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = model(input_ids=tokens).last_hidden_state, released.penultimate(tokens)
    assert len(model.encoder.layers) == len(released.transformer.resblocks) - 1
    assert difference(found, expected) < TOLERANCE


@pytest.mark.parametrize(("activation", "name"), [(torch.nn.GELU, "gelu"), (QuickGelu, "quick_gelu")])
def test_vision_gives_the_projected_embedding(activation: type, name: str) -> None:
    released = randomised(ReleasedClip(size=42, activation=activation), seed=2)
    converted = vision_from_release(released.state_dict(), head_dim=16, activation=name)
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**converted.config)).eval()
    model.load_state_dict(converted.tensors)
    pixels = torch.randn(2, 3, 42, 42, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        assert difference(model(pixel_values=pixels).image_embeds, released.visual(pixels)) < TOLERANCE


def test_there_and_back(released: ReleasedClip) -> None:
    tensors = released.state_dict()
    text = text_to_release(text_from_release(tensors, head_dim=16).tensors)
    vision = vision_to_release(vision_from_release(tensors, head_dim=16).tensors, "clip.")
    together = text | {key.removeprefix("clip."): tensor for key, tensor in vision.items()}
    last = {key for key in tensors if key.startswith("transformer.resblocks.2.")}
    assert set(tensors) - set(together) == last | {"text_projection", "logit_scale"}
    assert all(torch.equal(tensor, tensors[key]) for key, tensor in together.items())


def test_the_remains_in_hi3ds_checkpoint(released: ReleasedClip) -> None:
    """Hi3D deletes the text tower's blocks and saves the rest."""
    kept = {HI3D_CLIP + k: v for k, v in released.state_dict().items() if not k.startswith("transformer.")}
    other = {"model.diffusion_model.out.2.bias": torch.zeros(4)}
    found = vision_from_release(kept | other, prefix=HI3D_CLIP, head_dim=16)
    expected = vision_from_release(released.state_dict(), head_dim=16)
    assert found.config == expected.config
    assert set(found.tensors) == set(expected.tensors)


def test_copies_under_transformers_names(released: ReleasedClip) -> None:
    """A CLIPModel of the hub, and Stable Diffusion 2's text encoder, which has 23 layers already."""
    text = text_from_release(released.state_dict(), head_dim=16, layers_skipped=0)
    vision = vision_from_release(released.state_dict(), head_dim=16)
    whole = {f"text_model.{key}": tensor for key, tensor in text.tensors.items()} | dict(vision.tensors)
    whole |= {"logit_scale": torch.zeros(()), "text_projection.weight": torch.zeros(24, 32)}
    whole |= {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    assert (
        text_from_release(whole, head_dim=16).config == text_from_release(released.state_dict(), head_dim=16).config
    )  # the last layer is skipped here too
    assert vision_from_release(whole, head_dim=16) == vision
    cut = text_from_release(ReleasedClip(text_layers=24).state_dict(), head_dim=16)
    again = text_from_release(cut.tensors, head_dim=16)
    assert again.config["num_hidden_layers"] == cut.config["num_hidden_layers"] == 23


def test_released_sizes() -> None:
    """Counts of OpenCLIP ViT-H-14: 354.0 M text, 632.1 M vision, 986.1 M in all (its table of models)."""
    with torch.device("meta"):
        tensors = openclip_h().state_dict()
    assert sum(tensor.numel() for tensor in tensors.values()) == 986_109_441
    text, vision = text_from_release(tensors), vision_from_release(tensors)
    with torch.device("meta"):
        text_model = CLIPTextModel(CLIPTextConfig(**text.config))
        vision_model = CLIPVisionModelWithProjection(CLIPVisionConfig(**vision.config))
    text_model.load_state_dict(text.tensors, assign=True)
    vision_model.load_state_dict(vision.tensors, assign=True)
    assert (text_model.num_parameters(), len(text.tensors)) == (340_387_840, 372)
    assert (vision_model.num_parameters(), len(vision.tensors)) == (632_076_800, 520)
    # As laion/CLIP-ViT-H-14-laion2B-s32B-b79K and stabilityai/stable-diffusion-2 publish them.
    published = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 23}
    assert published.items() <= text.config.items()
    published = {"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32}
    published |= {"patch_size": 14, "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu"}
    assert published.items() <= vision.config.items()


def test_openai_l_is_inferred() -> None:
    with torch.device("meta"):
        tensors = openai_l().state_dict()
    vision = vision_from_release(tensors, activation="quick_gelu")
    assert sum(tensor.numel() for tensor in vision.tensors.values()) == 303_966_208
    assert vision.config["num_attention_heads"] == 16


def test_errors_name_the_keys(released: ReleasedClip) -> None:
    tensors = released.state_dict()
    with pytest.raises(CheckpointError, match=r"^CLIP's text encoder: has unknown keys decoder\.weight; is it"):
        text_from_release(tensors | {"decoder.weight": torch.zeros(1)}, head_dim=16)
    with pytest.raises(CheckpointError, match="head_dim 64 does not divide the width 48; pass the right one"):
        vision_from_release(tensors)
    name = "visual.transformer.resblocks.1.attn.in_proj_bias"
    with pytest.raises(CheckpointError, match=r"in_proj_bias must have shape \(144,\), has \(100,\)"):
        vision_from_release(tensors | {name: torch.zeros(100)}, head_dim=16)
    with pytest.raises(CheckpointError, match=r"visual\.positional_embedding is for 3 patches, expected a square"):
        vision_from_release(tensors | {"visual.positional_embedding": torch.zeros(4, 48)}, head_dim=16)
    with pytest.raises(CheckpointError, match=r"^CLIP's text encoder: lacks .*is it a checkpoint of another network"):
        text_from_release({})
