"""The small family: what a stage starts from, how its networks come into the tree, what the pipelines are made of."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from engine.checkpoints.layout import read_index
from engine.cli import main
from engine.errors import TrainingError
from engine.files import OrbitImages, write_shard
from engine.geometry import RING24, Orbit
from engine.multiview.conditions import cameras_told
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.videomv import VideoMVPipeline
from engine.splats.rendering import render_colours
from engine.training.family import (
    STAGES,
    TREE,
    Trained,
    begun,
    history,
    is_better,
    latents_are_learned,
    promote,
    start_folder,
)
from engine.training.recipes.mini import IMAGE_ENCODER, NETWORKS, PICTURE_NETWORKS, VAE
from engine.training.tasks.components import fresh_image_encoder, fresh_text_encoder
from tests.engine.training.procedural import thing

RUN = Trained(Path(), {"loss": 0.5}, steps=10, minutes=1.0, device="cpu", data="ring24", commit="abc")


def vae_run(folder: Path) -> Trained:
    torch.manual_seed(0)
    AutoencoderKL(**VAE).save_pretrained(folder / "vae")
    return replace(RUN, weights=folder)


def image_run(folder: Path) -> Trained:
    torch.manual_seed(1)
    ImageOrbitUNet(**PICTURE_NETWORKS.unet).save_pretrained(folder / "unet")
    fresh_image_encoder(IMAGE_ENCODER, 0).save_pretrained(folder / "image_encoder")
    fresh_text_encoder(NETWORKS.text_encoder, 0).save_pretrained(folder / "text_encoder")
    return replace(RUN, weights=folder)


def test_a_stage_says_what_must_be_trained_first(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"videomv-text needs vae, which .* train it first: make train-mini STAGE=vae"
    ):
        start_folder(STAGES["text"], tmp_path / "start", tmp_path / "tree")
    assert not (tmp_path / "start").exists()


def test_networks_come_into_the_tree_and_make_a_pipeline(tmp_path: Path) -> None:
    """Half precision in the tree, each network once; the pipeline's folder holds an index alone."""
    tree = tmp_path / "tree"
    promote("vae", vae_run(tmp_path / "vae_run"), tree)
    assert not latents_are_learned(tree)
    assert not (tree / "videomv-image").exists()  # nothing to generate with yet
    run = image_run(tmp_path / "image_run")
    promote("image", run, tree)
    assert latents_are_learned(tree)
    assert sorted(path.name for path in (tree / "videomv-image").iterdir()) == ["model_index.json"]
    assert read_index(tree / "videomv-image").folders["vae"] == "../vae"
    pipeline = VideoMVPipeline.from_pretrained(tree / "videomv-image")
    assert pipeline.settings.size_px == 128
    for config in tree.glob("*/config.json"):
        assert str(tmp_path) not in config.read_text()  # where a network was trained is nobody's business
    own = ImageOrbitUNet.from_pretrained(run.weights / "unet").state_dict()
    for name, tensor in pipeline.unet.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, own[name].half().float(), atol=0, rtol=0)
    assert history(tree)["image"]["runs"] == [
        {"steps": 10, "minutes": 1.0, "device": "cpu", "data": "ring24", "commit": "abc"}
    ]


def test_a_stage_starts_from_what_is_there(tmp_path: Path) -> None:
    """The text network begins as the picture network's copy; trained again, it goes on from itself."""
    tree = tmp_path / "tree"
    promote("vae", vae_run(tmp_path / "vae_run"), tree)
    fresh = start_folder(STAGES["image"], tmp_path / "fresh", tree)
    assert set(read_index(fresh).components) == {"vae", "text_encoder"}
    promote("image", image_run(tmp_path / "image_run"), tree)
    again = start_folder(STAGES["image"], tmp_path / "again", tree)
    assert set(read_index(again).components) == {"vae", "text_encoder", "unet", "image_encoder"}
    with pytest.raises(TrainingError, match=r"videomv-text needs text-encoder, .* STAGE=expectation-text"):
        start_folder(STAGES["text"], tmp_path / "text", tree)
    text = start_folder(STAGES["expectation-text"], tmp_path / "text", tree)
    assert read_index(text).components == {"vae": "AutoencoderKL", "unet": "TextOrbitUNet"}


def test_a_stage_runs_a_pipeline_of_what_is_there_along(tmp_path: Path) -> None:
    """The refiner learns anew where it was taken out of the tree: the first stage that runs along knows that."""
    tree = tmp_path / "tree"
    shutil.copytree(TREE, tree)
    shutil.rmtree(tree / "hi3d-refiner")
    assert "refiner" in read_index(tree / "hi3d").components
    start = start_folder(STAGES["hi3d-refiner"], tmp_path / "start", tree)
    assert set(read_index(start).components) == {"vae", "image_encoder", "depth"}
    assert set(read_index(tree / "hi3d").components) == {"vae", "image_encoder", "depth", "unet"}
    shutil.rmtree(tree / "hi3d-unet")
    with pytest.raises(TrainingError, match=r"hi3d-refiner needs hi3d-unet, .* STAGE=expectation-hi3d"):
        start_folder(STAGES["hi3d-refiner"], tmp_path / "start", tree)


def test_a_text_network_begins_as_a_picture_network(tmp_path: Path) -> None:
    picture = ImageOrbitUNet(**PICTURE_NETWORKS.unet)
    picture.save_pretrained(tmp_path)
    unet = begun(tmp_path, "TextOrbitUNet")
    state = picture.state_dict()
    for name, tensor in unet.state_dict().items():
        if not name.startswith(("expectation.", "conv_out.", "conv_in.weight")):
            assert torch.equal(tensor, state[name])
    assert torch.equal(unet.expectation.pictures, picture.expectation.pictures)
    assert not unet.conv_out.weight.any()  # at first it is what it expects
    noisy, *_, expected = picture.conv_in.weight.split(8, dim=1)
    assert torch.equal(unet.conv_in.weight, torch.cat([noisy, expected], dim=1))


def test_a_video_network_begins_with_what_the_picture_network_expects(tmp_path: Path) -> None:
    """Both are told the place of a view by its azimuth: a quarter turn is the sixth of 24 views, the fourth of 16."""
    picture = ImageOrbitUNet(**PICTURE_NETWORKS.unet)
    for layer in (picture.expectation.turn, picture.expectation.shares):
        torch.nn.init.normal_(layer.weight, std=0.05)
    picture.save_pretrained(tmp_path)
    video = begun(tmp_path, "OrbitVideoUNet").eval()
    first, noise = torch.randn(1, 8, 16, 16), torch.randn(1, 16, 8, 16, 16)
    told = cameras_told([RING24.orbit(10.0, 128, 128)], "picture", torch.device("cpu"))
    with torch.no_grad():
        expected, _ = picture.eval().expected(first, told)
        v = video(
            noise, torch.tensor([5.0]), torch.randn(1, 1, 64), first[:, None].expand(-1, 16, -1, -1, -1),
            torch.randn(1, 512),
        )  # fmt: skip
    torch.testing.assert_close(-v[0, 4], expected[0, 6], rtol=1e-3, atol=1e-3)  # v is -x0 where all is noise
    assert not torch.allclose(expected[0, 6], expected[0, 18], atol=0.1)


def test_a_new_expectation_makes_what_works_on_from_it_unknown(tmp_path: Path) -> None:
    tree, worse = tmp_path / "tree", {"loss": 9.0}
    run = image_run(tmp_path / "run")
    promote("expectation-image", run, tree)
    promote("image", run, tree)
    assert history(tree)["expectation-image"]["measured"] == {"loss": 0.5}  # the denoiser leaves it as it is
    assert not is_better("image", replace(run, measured=worse), tree)
    promote("expectation-image", run, tree)
    assert is_better("image", replace(run, measured=worse), tree)
    assert len(history(tree)["image"]["runs"]) == 1


def test_only_a_lower_loss_is_better(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    run = vae_run(tmp_path / "run")
    assert is_better("vae", run, tree)
    promote("vae", run, tree)
    assert not is_better("vae", run, tree)
    assert is_better("vae", replace(run, measured={"loss": 0.49}), tree)


@torch.no_grad()
def photographed(uid: str, orbit: Orbit, number: int) -> OrbitImages:
    colour, alpha = render_colours(thing(number), orbit.cameras)
    rgba = torch.cat([(colour / alpha[:, None].clamp_min(1e-3)).clamp(0, 1), alpha[:, None]], 1)
    return OrbitImages(uid, orbit, (255 * rgba.permute(0, 2, 3, 1)).round().byte().contiguous().numpy())


@pytest.mark.slow
def test_the_command_trains_a_stage_into_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From nothing: the autoencoder's latents come out normalised; trained again, only its decoder may change."""
    orbit = replace(RING24.orbit(10.0, 128, 128).subset(range(4)), name="ring24")
    data = tmp_path / "data"
    for split in ("train", "val"):
        write_shard(data / f"ring24-{split}-000.tar", [photographed(f"{split}{k}", orbit, k) for k in range(2)])
    line = ["train-mini", "vae", "--data", str(data), "--family", str(tmp_path / "tree"), "--out", str(tmp_path / "runs"),
            "--minutes", "0.05", "--workers", "0", "--threads", "1", "-q"]  # fmt: skip
    assert main(line) == 0
    assert "better: the weights are replaced" in capsys.readouterr().out
    vae = AutoencoderKL.from_pretrained(tmp_path / "tree" / "vae", torch_dtype=torch.float32)
    told = json.loads((tmp_path / "tree" / "training.json").read_text())["vae"]
    assert told["runs"][0]["device"] == "cpu"
    (tmp_path / "tree" / "image-unet").mkdir()  # something that knows the latents
    assert main([*line, "--always"]) == 0
    after = AutoencoderKL.from_pretrained(tmp_path / "tree" / "vae", torch_dtype=torch.float32)
    for name, tensor in after.state_dict().items():
        if name.startswith(("encoder.", "quant_conv.")):
            assert torch.equal(tensor, vae.state_dict()[name]), name
    assert any(not torch.equal(tensor, vae.state_dict()[name]) for name, tensor in after.state_dict().items())
