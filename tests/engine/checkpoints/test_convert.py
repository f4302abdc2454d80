"""From files as they are released to a folder that the pipelines load, with nothing lost on the way."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from safetensors import SafetensorError
from torch import Tensor

from engine.checkpoints import convert as conversion
from engine.checkpoints.assemble import SYSTEMS, Choices, missing_of
from engine.checkpoints.convert import ConvertReport, convert
from engine.checkpoints.layout import load_component, read_index
from engine.errors import CheckpointError, TurntableError
from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.settings import VIDEOMV_PICTURE, VIDEOMV_TEXT
from engine.multiview.videomv import VideoMVPipeline
from engine.results import sha256_of
from tests.engine.checkpoints.released import SMALL, State, hi3d_files, load_text_encoder, small_vae, videomv_files


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, State], dict[str, Path]]:
    return videomv_files(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def hi3d(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, State], dict[str, Path]]:
    return hi3d_files(tmp_path_factory.mktemp("hi3d"))


def run(sources: list[Path], out: Path, **settings: object) -> ConvertReport:
    return convert(sources, out, choices=SMALL, **settings)


def assert_same(folder: Path, name: str, expected: State, dtype: torch.dtype = torch.float32) -> None:
    part = load_component(folder / name, read_index(folder).components[name], dtype)
    found: dict[str, Tensor] = part.state_dict()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor.to(dtype), rtol=0, atol=0)


def test_videomv_in_two_calls(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    own, files = text
    out = tmp_path / "out"
    seen: list[tuple[str, int, int]] = []
    report = run([files["unet"], files["vae"]], out, on_progress=lambda *step: seen.append(step))
    assert report.system == "videomv"
    assert report.written == ("unet", "vae", "reconstructor")
    assert report.recognised[0] == "t2v_00333000.pth: VideoMV, text to 24 views"
    assert not report.runs
    assert [(one.component, one.required) for one in report.missing] == [("text_encoder", True)]
    assert "laion/CLIP-ViT-H-14-laion2B-s32B-b79K" in report.missing[0].get
    assert seen[0] == ("reading t2v_00333000.pth", 0, 5)
    assert seen[-1] == ("done", 5, 5)
    report = run([files["clip"], files["tokenizer"]], out)
    assert report.written == ("text_encoder",)
    assert report.runs
    for name, tensors in own.items():
        assert_same(out, name, tensors)
    pipeline = VideoMVPipeline.from_pretrained(out)
    assert pipeline.settings == VIDEOMV_TEXT
    assert pipeline.components["text_encoder"].encode(["a cup"]).shape == (1, 77, 32)


def test_videomv_of_pictures_from_one_folder(tmp_path: Path) -> None:
    own, _ = videomv_files(tmp_path / "pretrained_models", "picture")
    (tmp_path / "pretrained_models" / "mask_pos.pth").write_bytes(b"\x80\x02}q\x00.")
    report = run([tmp_path / "pretrained_models"], tmp_path / "out")
    assert report.written == ("unet", "vae", "text_encoder", "image_encoder", "reconstructor")
    assert report.runs
    assert any("mask_pos.pth" in words for words in report.left_out)
    for name, tensors in own.items():
        assert_same(tmp_path / "out", name, tensors)
    pipeline = VideoMVPipeline.from_pretrained(tmp_path / "out")
    assert pipeline.settings == VIDEOMV_PICTURE
    # VideoMV's reconstructor keeps what it was trained with: quaternions over the Gaussians, distances as they are.
    assert pipeline.components["reconstructor"].config.quaternion_norm == "over_gaussians"
    assert pipeline.components["reconstructor"].config.radius_m is None


def test_hi3d_stage_by_stage(hi3d: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    own, files = hi3d
    report = run([files["first"]], tmp_path)
    assert report.written == ("unet", "vae", "image_encoder", "aesthetic")
    assert report.runs
    assert [one.component for one in report.missing] == ["refiner", "depth"]
    report = run([files["second"]], tmp_path, replace=True)
    assert report.written == ("vae", "image_encoder", "refiner", "depth")
    assert not report.missing
    for name, tensors in own.items():
        assert_same(tmp_path, name, tensors)
    assert Hi3DPipeline.from_pretrained(tmp_path).components["image_encoder"].preprocessing == "hi3d"


def test_both_stages_at_once(hi3d: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    report = run(list(hi3d[1].values()), tmp_path)
    assert report.written == ("unet", "vae", "image_encoder", "aesthetic", "refiner", "depth")
    words = "second_stage.pt: vae at first_stage_model. (the vae was taken from first_stage.pt)"
    assert words in report.left_out


def test_a_pipeline_of_diffusers(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    """ModelScopeT2V as the hub has it: the same network without cameras, which begin as training begins."""
    source, out = tmp_path / "text-to-video-ms-1.7b", tmp_path / "out"
    base = UNet3DConditionModel(
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"), up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=16,
    )  # fmt: skip
    base.save_pretrained(source / "unet")
    small_vae().save_pretrained(source / "vae")
    encoder = load_text_encoder(text[0]["text_encoder"], text[1]["tokenizer"])
    encoder.model.save_pretrained(source / "text_encoder")
    encoder.tokenizer.save_pretrained(source / "tokenizer")
    (source / "scheduler").mkdir()
    (source / "model_index.json").write_text('{"_class_name": "TextToVideoSDPipeline"}')
    report = convert([source], out, choices=Choices(head_dim=16, clip_head_dim=16))
    assert report.written == ("unet", "vae", "text_encoder")
    assert report.runs
    assert_same(out, "vae", small_vae().state_dict())
    found = load_component(out / "unet", "TextOrbitUNet", torch.float32)
    for name, tensor in base.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)
    assert {name for name in found.state_dict() if name not in base.state_dict()} == {
        f"camera_embedding.{layer}.{kind}" for layer in ("linear_1", "linear_2") for kind in ("weight", "bias")
    }
    latents, time, tokens = torch.randn(1, 3, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 5, 32)
    with torch.no_grad():
        expected = base.eval()(latents.transpose(1, 2), time, tokens).sample.transpose(1, 2)
        made = found.eval()(latents, time, tokens, torch.randn(1, 3, 16))
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)  # the same sums in another order


@pytest.mark.parametrize(
    "folder",
    [
        "stable-video-diffusion-img2vid-xt",
        "models--stabilityai--stable-video-diffusion-img2vid-xt/snapshots/0123456789abcdef",  # in the hub's cache
    ],
)
def test_svd_of_diffusers(folder: str, tmp_path: Path) -> None:
    base = UNetSpatioTemporalConditionModel(
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, num_attention_heads=(2, 4),
    )  # fmt: skip
    source = tmp_path / folder
    base.save_pretrained(source / "unet")
    report = run([source / "unet"], tmp_path / "out")
    assert report.recognised == ("diffusion_pytorch_model.safetensors: Stable Video Diffusion, picture to 25 frames",)
    assert_same(tmp_path / "out", "unet", base.state_dict())


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_precision(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    own, files = text
    run([files["unet"], files["clip"], files["tokenizer"]], tmp_path, precision=precision)
    for name in ("unet", "text_encoder"):
        assert_same(tmp_path, name, own[name], dtype)
    stored = sum(path.stat().st_size for path in (tmp_path / "unet").glob("*.safetensors"))
    numbers = sum(tensor.numel() for tensor in own["unet"].values())
    # Two bytes a number; names, shapes and offsets of about 500 tensors take the rest.
    assert 2 * numbers < stored < 2 * numbers + 100_000


def test_the_card_names_licences_and_hashes(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    _, files = text
    run([files["unet"]], tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlicense: other\nlicense_name: MIT AND CC-BY-NC-4.0\n")
    assert "not for commercial use" in card
    assert "- text_encoder (needed): laion/" in card
    content = json.loads((tmp_path / "sources.json").read_text())
    assert content["licences"][0]["licence"] == "MIT AND CC-BY-NC-4.0"
    assert content["sources"]["unet"][0]["sha256"] == sha256_of(files["unet"])
    assert sha256_of(files["unet"]) in card
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")}
    assert content["files"].keys() == written
    for name, digest in content["files"].items():
        assert sha256_of(tmp_path / name) == digest
        assert digest in card


def test_lgm_alone_and_before_its_fix(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    own, _ = text
    norms = {}
    for name in ("model_fp16.safetensors", "model_fp16_fixrot.safetensors"):
        from safetensors.torch import save_file

        save_file(own["reconstructor"], tmp_path / name)
        report = run([tmp_path / name], tmp_path / f"out_{name}")
        assert (report.system, report.written, report.missing) == ("reconstructor", ("reconstructor",), ())
        part = load_component(tmp_path / f"out_{name}" / "reconstructor", "GaussianUNet", torch.float32)
        norms[name] = (part.config.quaternion_norm, part.config.radius_m)
    assert list(norms.values()) == [("over_gaussians", 1.5), ("per_gaussian", 1.5)]


def test_existing_folders(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    _, files = text
    out = tmp_path / "out"
    run([files["vae"]], out, system="videomv")
    before = sha256_of(out / "vae" / "diffusion_pytorch_model.safetensors")
    assert run([files["vae"]], out).written == ()  # the same once more
    with pytest.raises(CheckpointError, match=r"out: holds vae already, made in another way; allow replacing it"):
        run([files["vae"]], out, precision="fp16")
    other = tmp_path / "other.pth"
    torch.save(torch.load(files["vae"]) | {"step": 1}, other)
    with pytest.raises(CheckpointError, match=r"out: holds vae already, made of other files; allow replacing it"):
        run([other], out)
    assert run([files["vae"]], out, replace=True).written == ("vae",)
    assert sha256_of(out / "vae" / "diffusion_pytorch_model.safetensors") == before
    with pytest.raises(CheckpointError, match="is a folder of videomv, not of hi3d"):
        run([files["vae"]], out, system="hi3d")
    with pytest.raises(CheckpointError, match=r"is a folder of Turntable's weights already"):
        run([out], tmp_path / "again")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").touch()
    with pytest.raises(CheckpointError, match=r"other: holds notes.txt and no model_index.json; name an empty"):
        run([files["vae"]], other)
    with pytest.raises(CheckpointError, match=r"notes.txt: is a file; name a folder"):
        run([files["vae"]], other / "notes.txt")


def test_what_does_not_go_together(
    text: tuple[dict[str, State], dict[str, Path]], hi3d: tuple[dict[str, State], dict[str, Path]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(
        CheckpointError, match=r"Stable Diffusion's autoencoder: belongs to several systems; convert the"
    ):
        run([text[1]["vae"]], out)
    copy = tmp_path / "t2v_2.pth"
    shutil.copy(text[1]["unet"], copy)
    with pytest.raises(CheckpointError, match=r"t2v_00333000.pth and .*t2v_2.pth both hold a unet"):
        run([text[1]["unet"], copy], out)
    with pytest.raises(
        CheckpointError, match=r"nothing to convert for reconstructor: .*first_stage.pt: orbit-video-unet at"
    ):
        run([hi3d[1]["first"]], out, system="reconstructor")
    with pytest.raises(
        CheckpointError, match=r"nothing to convert for videomv: .*the text encoder needs its tokenizer"
    ):
        run([text[1]["clip"]], out, system="videomv")
    assert not out.exists()


def test_a_full_disk_leaves_nothing(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = text
    out = tmp_path / "out"
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1000))
        with pytest.raises(CheckpointError, match=r"disk full: cannot convert into .*out: needs 0.0\d GB"):
            run([files["vae"]], out, system="videomv")
    assert not out.exists()

    def full(*_arguments: object, **_options: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    run([files["vae"]], out, system="videomv")
    before = {path: sha256_of(path) for path in out.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(conversion, "save_torch_state_dict", full)
        with pytest.raises(CheckpointError, match=r"disk full: cannot write .*vae: needs"):
            run([files["vae"]], out, replace=True)
    assert {path: sha256_of(path) for path in out.rglob("*") if path.is_file()} == before


def test_large_networks_come_in_parts(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = text
    run([files["vae"]], tmp_path / "whole", system="videomv")
    monkeypatch.setattr(conversion, "MAX_SHARD", "50KB")
    run([files["vae"]], tmp_path / "parts", system="videomv")
    assert len(list((tmp_path / "parts" / "vae").glob("*.safetensors"))) > 2
    whole, parts = (
        load_component(tmp_path / name / "vae", "AutoencoderKL", torch.float32) for name in ("whole", "parts")
    )
    assert all(torch.equal(one, parts.state_dict()[name]) for name, one in whole.state_dict().items())


def test_one_conversion_at_a_time(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    from engine.results import locked

    with locked(tmp_path), pytest.raises(TurntableError, match="another turntable is writing here"):
        run([text[1]["vae"]], tmp_path, system="videomv")


def test_missing_components_are_those_of_the_pipelines() -> None:
    for system, pipeline in (("videomv", VideoMVPipeline), ("hi3d", Hi3DPipeline)):
        assert set(SYSTEMS[system]) == {*pipeline.required, *pipeline.optional}
        needed = {one.component for one in missing_of(system, {}, None) if one.required}
        assert needed == set(pipeline.required)
