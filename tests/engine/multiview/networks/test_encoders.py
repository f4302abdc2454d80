"""Text and image encoders: shapes, chunks, folders, errors. That they compute what the releases do: test_keys_clip."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from engine.errors import CheckpointError
from engine.multiview.networks.clip_pictures import hi3d_pixels, videomv_pixels
from engine.multiview.networks.encoders import ImageEncoder, Preprocessing, TextEncoder
from engine.multiview.networks.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return train_tokenizer(["a red chair", "a blue car"], merges=20)


@pytest.fixture(scope="module")
def text(tokenizer: CLIPTokenizer) -> TextEncoder:
    return TextEncoder.fresh(tokenizer, width=48)


def test_tokens_after_the_end_are_encoded_too(text: TextEncoder) -> None:
    """OpenCLIP masks no padding: tokens see all before them, none behind them."""
    with torch.no_grad():
        short, long = text.encode(["a red", "a red car"])
    assert (text.width, tuple(short.shape)) == (48, (77, 48))
    torch.testing.assert_close(short[:3], long[:3], rtol=0, atol=1e-6)  # start, a, red
    assert (short[3:] - long[3:]).abs().amax(dim=-1).min() > 1e-4
    assert (short[40] - short[41]).abs().max() > 1e-3  # padding has positions


def test_fresh_weights_follow_the_seed(tokenizer: CLIPTokenizer, text: TextEncoder) -> None:
    state = torch.random.get_rng_state()
    again, other = TextEncoder.fresh(tokenizer, width=48), TextEncoder.fresh(tokenizer, width=48, seed=1)
    assert torch.equal(state, torch.random.get_rng_state())
    weights = [encoder.model.embeddings.token_embedding.weight for encoder in (text, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_text_folder(text: TextEncoder, tmp_path: Path) -> None:
    text.save_pretrained(tmp_path)
    read = TextEncoder.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(read.encode(["a blue chair!"]), text.encode(["a blue chair!"]))
    assert TextEncoder.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).encode(["x"]).dtype == torch.bfloat16


def test_text_trains(text: TextEncoder) -> None:
    text.encode(["a red chair"]).square().sum().backward()
    assert text.model.encoder.layers[0].mlp.fc1.weight.grad is not None
    text.zero_grad()


@pytest.mark.parametrize("preprocessing", ["videomv", "hi3d"])
def test_image_embedding(preprocessing: Preprocessing, tmp_path: Path) -> None:
    encoder = ImageEncoder.fresh(preprocessing, embedding=24)
    encoder.chunk = 2
    images = torch.rand(5, 3, 96, 96, generator=torch.Generator().manual_seed(3)) * 2 - 1
    rule = videomv_pixels if preprocessing == "videomv" else hi3d_pixels
    with torch.no_grad():
        found = encoder.encode(images)
        whole = encoder.model(pixel_values=rule(images, 56)).image_embeds
    assert found.shape == (5, 1, encoder.width)
    torch.testing.assert_close(found[:, 0], whole, rtol=1e-5, atol=1e-6)  # float32: batches of another size
    encoder.save_pretrained(tmp_path)
    read = ImageEncoder.from_pretrained(tmp_path)
    assert read.preprocessing == preprocessing
    with torch.no_grad():
        torch.testing.assert_close(read.encode(images), found, rtol=1e-5, atol=1e-6)


def test_the_preprocessings_differ() -> None:
    images = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(4)) * 2 - 1
    one, other = ImageEncoder.fresh("videomv"), ImageEncoder.fresh("hi3d")
    with torch.no_grad():
        assert (one.encode(images) - other.encode(images)).abs().max() > 1e-3


def test_errors(tokenizer: CLIPTokenizer, text: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"knows \d+ tokens and 77 positions, its tokenizer has 514 and 77; take"):
        TextEncoder(text.model, train_tokenizer([], merges=0))
    with pytest.raises(ValueError, match="VideoMV's CLIP takes square pictures, got 64x48; crop or pad them first"):
        ImageEncoder.fresh("videomv").encode(torch.zeros(1, 3, 48, 64))
    ImageEncoder.fresh("hi3d").save_pretrained(tmp_path)
    (tmp_path / "preprocessor.json").write_text(json.dumps({"preprocessing": "svd"}))
    with pytest.raises(CheckpointError, match="must be one of videomv, hi3d, got 'svd'"):
        ImageEncoder.from_pretrained(tmp_path)
    (tmp_path / "preprocessor.json").unlink()
    with pytest.raises(CheckpointError, match=r"preprocessor\.json: expected the name of a preprocessing there"):
        ImageEncoder.from_pretrained(tmp_path)


def test_missing_tensors_are_no_random_numbers(text: TextEncoder, tmp_path: Path) -> None:
    text.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    gone = next(key for key in tensors if key.endswith("layers.1.mlp.fc2.weight"))
    save_file({key: tensor for key, tensor in tensors.items() if key != gone}, path, metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"the weights have missing keys \(1\), such as encoder\.layers\.1\.mlp\.fc2"
    ):
        TextEncoder.from_pretrained(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="does not load"):
        TextEncoder.from_pretrained(tmp_path)
