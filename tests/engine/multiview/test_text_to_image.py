"""A diffusers text-to-image pipeline paints the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from engine.errors import CheckpointError
from engine.multiview.networks.encoders import TextEncoder
from engine.multiview.networks.tokenizer import train_tokenizer
from engine.multiview.text_to_image import paint


@pytest.fixture(scope="module")
def painter(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    text = TextEncoder.fresh(train_tokenizer(["a red cup", "a white object"], 32), width=32)
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                          up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, latent_channels=4),
        text_encoder=text.model, tokenizer=text.tokenizer,
        unet=UNet2DConditionModel(sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
                                  down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), cross_attention_dim=32,
                                  up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2),
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("painter")
    pipeline.save_pretrained(folder)
    return str(folder)


@pytest.mark.slow
def test_the_same_seed_paints_the_same_picture(painter: str) -> None:
    one, again, other = (paint("a red cup", painter, seed) for seed in (3, 3, 4))
    assert one.rgba.shape == (32, 32, 4)
    assert (one.rgba[..., 3] == 255).all()
    np.testing.assert_array_equal(one.rgba, again.rgba)
    assert (one.rgba != other.rgba).any()


def test_what_is_no_painter_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        paint("a cup", str(tmp_path), 0)
    assert str(error.value).startswith(
        f"--text-to-image {tmp_path}: this folder does not load as a diffusers text-to-image pipeline ("
    )
    assert "\n" not in str(error.value)
