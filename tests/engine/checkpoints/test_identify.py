"""What weights are, from names and shapes, at the released sizes; and what is said when they do not fit."""

import pytest
import torch
from torch import Tensor

from engine.checkpoints.identify import check_fits, check_preset, identify
from engine.checkpoints.releases import RELEASES
from engine.errors import CheckpointError
from engine.presets import PRESETS

Keys = dict[str, dict[str, Tensor]]


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("name", "file", "release"),
    [
        ("videomv_t2v", "t2v_00333000.pth", "videomv-text"),
        ("videomv_t2v", "non_ema_00365000.pth", "videomv-text-laion"),
        ("videomv_i2v", "i2v_00882000.pth", "videomv-image"),
        ("hi3d_stage1", "", "hi3d-stage1"),
        ("hi3d_stage1", "svd_xt.safetensors", "svd"),
        ("hi3d_stage2", "", "hi3d-stage2"),
        ("lgm_big", "model_fp16_fixrot.safetensors", "lgm-fixrot"),
        ("lgm_big", "model_fp16.safetensors", "lgm"),
        ("sd_vae", "VQGAN_autoencoder.pth", "sd-vae"),
    ],
)
def test_released_networks(true_keys: Keys, name: str, file: str, release: str) -> None:
    found = identify(true_keys[name], file_name=file)
    assert found.release.name == release
    assert [part.count for part in found.parts] == [len(true_keys[name])]
    assert not found.unused


@pytest.mark.parametrize(("name", "release"), [("videomv_t2v", "modelscope-t2v"), ("videomv_i2v", "i2vgen-xl")])
def test_base_networks_lack_cameras(true_keys: Keys, name: str, release: str) -> None:
    base = {key: tensor for key, tensor in true_keys[name].items() if not key.startswith("camera_embedding.")}
    assert identify(base).release.name == release


def test_videomv_with_its_reconstructor(true_keys: Keys) -> None:
    whole = true_keys["videomv_i2v"] | under("lgm_big.", true_keys["lgm_big"])
    found = identify(whole)
    assert found.release.name == "videomv-image"
    assert [(part.kind, part.prefix) for part in found.parts] == [("image-orbit-unet", ""), ("lgm", "lgm_big.")]


def test_whole_files_of_hi3d_and_svd(true_keys: Keys) -> None:
    vae = true_keys["sd_vae"]
    clip = {"visual.conv1.weight": torch.empty(1280, 3, 14, 14, device="meta")}
    common = under("first_stage_model.", vae) | under("conditioner.embedders.3.encoder.", vae)
    common |= under("conditioner.embedders.0.open_clip.model.", clip)
    one = under("model.diffusion_model.", true_keys["hi3d_stage1"]) | common
    assert identify(one).release.name == "svd"
    mlp = {"layers.0.weight": torch.empty(1024, 768), "layers.7.weight": torch.empty(1, 16)}
    scored = one | under("conditioner.embedders.1.aesthetic_mlp.", mlp)
    found = identify(scored)
    assert found.release.name == "hi3d-stage1"
    assert [part.kind for part in found.parts] == ["orbit-video-unet", "vae", "open-clip", "aesthetic"]
    assert len(found.unused) == len(vae)  # the condition's own copy of the autoencoder
    two = under("model.diffusion_model.", true_keys["hi3d_stage2"]) | common
    assert identify(two).release.name == "hi3d-stage2"


def test_other_weights() -> None:
    with pytest.raises(
        CheckpointError, match=r"bert.bin: 1 tensors of no known network \(encoder.layer.0.weight\); known"
    ):
        identify({"encoder.layer.0.weight": torch.empty(3)}, file_name="bert.bin")


def test_every_release_says_what_a_card_needs() -> None:
    for release in RELEASES.values():
        assert release.licence.page.startswith("https://")
        assert release.licence.expression
        assert release.credit
        assert release.presets
    named = {name for release in RELEASES.values() for name in release.presets} - {"reconstructor"}
    assert named <= set(PRESETS)


def test_the_wrong_preset(true_keys: Keys) -> None:
    found = identify(true_keys["hi3d_stage1"])
    with pytest.raises(CheckpointError) as caught:
        check_preset(found, "videomv-text", "first_stage.pt")
    assert str(caught.value) == (
        "first_stage.pt: is Hi3D, first stage: picture to 16 views at 512 (orbit-video-unet), which preset videomv-text "
        "has no use for; take preset hi3d"
    )
    check_preset(found, "hi3d", "first_stage.pt")


def test_weights_that_do_not_fit(true_keys: Keys) -> None:
    text, image = true_keys["videomv_t2v"], true_keys["videomv_i2v"]
    check_fits(text, text, "preset videomv-text, unet")
    with pytest.raises(CheckpointError) as caught:
        check_fits(image, text, "preset videomv-text, unet")
    words = str(caught.value)
    assert words.startswith(
        "preset videomv-text, unet: these weights do not fit: they hold unknown context_embedding.0.bias"
    )
    assert "input_blocks.0.0.weight has shape (320, 8, 3, 3), expected (320, 4, 3, 3) (1 such)" in words
    assert words.endswith("They are of VideoMV, picture to 24 views (image-orbit-unet): take preset videomv-image")
    with pytest.raises(CheckpointError, match=r"they lack time_embed.2.weight\. They are of VideoMV, text"):
        check_fits({k: v for k, v in text.items() if k != "time_embed.2.weight"}, text, "preset videomv-text, unet")
