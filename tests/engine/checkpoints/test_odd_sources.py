"""Conversions as they go wrong: killed, given the same file twice, odd paths, folders that cannot be written."""

import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from engine.checkpoints.convert import convert
from engine.checkpoints.layout import read_index
from engine.checkpoints.pieces import read_sources
from engine.checkpoints.read import read_checkpoint
from engine.errors import CheckpointError
from engine.results import sha256_of
from tests.engine.checkpoints.released import SMALL, State, small_vae, videomv_files

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, State], dict[str, Path]]:
    return videomv_files(tmp_path_factory.mktemp("text"))


def hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.checkpoints import convert as conversion
from tests.engine.checkpoints.released import SMALL

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

where, out, *sources = sys.argv[1:]
count = 0
def second(*arguments, **named):
    global count
    count += 1
    die() if count == int(where[-1]) else real(*arguments, **named)

real = getattr(conversion, where[:-1])
setattr(conversion, where[:-1], second)
conversion.convert([Path(source) for source in sources], Path(out), choices=SMALL)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", ["save_torch_state_dict1", "write_origin1", "save_torch_state_dict2", "write_origin2", "sync_folder1"]
)
def test_a_killed_conversion_is_taken_up_again(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, where: str
) -> None:
    """By the same call, and the folder is then as if nothing had happened."""
    sources = [text[1]["unet"], text[1]["vae"]]
    convert(sources, tmp_path / "whole", choices=SMALL)
    command = [sys.executable, "-c", KILLED, where, str(tmp_path / "out"), *map(str, sources)]
    killed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    there = read_index(tmp_path / "out").components
    assert len(there) == int(where[-1]) - 1
    report = convert(sources, tmp_path / "out", choices=SMALL)
    assert {*report.written, *there} == {"unet", "vae", "reconstructor"}
    assert not {*report.written} & {*there}
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")


def test_a_file_given_twice_counts_once(text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path) -> None:
    unet = text[1]["unet"]
    link = tmp_path / "gewählt t2v (1).pth"
    link.symlink_to(unet)
    report = convert([link, unet, unet.parent, unet], tmp_path / "größe ✓" / "o'ut", choices=SMALL)
    assert report.recognised[0] == "gewählt t2v (1).pth: VideoMV, text to 24 views"
    assert report.written == ("unet", "vae", "text_encoder", "reconstructor")
    assert report.left_out == ()
    assert "| unet | gewählt t2v (1).pth |" in (report.folder / "README.md").read_text()


def test_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "w.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: no such file or folder"):
        convert([tmp_path / "w.pth"], tmp_path / "out")


def test_numbers_too_large_for_fp16_are_named_and_nothing_is_written(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path
) -> None:
    tensors = read_checkpoint(text[1]["vae"])
    tensors["first_stage_model.decoder.conv_out.bias"] = torch.tensor([0.0, -70000.0, 1.0])
    torch.save(tensors, tmp_path / "vae.pth")
    sources = [text[1]["unet"], tmp_path / "vae.pth"]
    with pytest.raises(CheckpointError) as caught:
        convert(sources, tmp_path / "out", precision="fp16", choices=SMALL)
    assert str(caught.value) == (
        "vae.pth: decoder.conv_out.bias of the vae holds 70000, more than fp16 can (65504), and would become infinite; "
        "take precision bf16 or keep"
    )
    assert not (tmp_path / "out").exists()
    assert "vae" in convert(sources, tmp_path / "out", precision="bf16", choices=SMALL).written


def test_folders_that_cannot_be_written(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"cannot write .*file/out: Not a directory; choose another folder"):
        convert([text[1]["vae"]], tmp_path / "file" / "out", system="videomv")

    def refuse(*_arguments: object, **_settings: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(CheckpointError, match=r"cannot write .*out: Read-only file system; choose another folder"):
        convert([text[1]["vae"]], tmp_path / "out", system="videomv")


def test_files_that_cannot_be_read(
    text: tuple[dict[str, State], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *_arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"VQGAN_autoencoder\.pth: cannot be read \(Permission denied\)"):
        convert([text[1]["vae"]], tmp_path / "out", system="videomv")


def test_a_repository_in_the_hubs_own_cache(tmp_path: Path) -> None:
    """It lies in ~/.cache, in folders named by hashes, as links to files named by hashes."""
    repository = tmp_path / ".cache/huggingface/hub/models--stabilityai--stable-video-diffusion-img2vid-xt"
    snapshot = repository / "snapshots" / ("0123456789" * 4)
    small_vae().save_pretrained(snapshot / "vae")
    (snapshot / "model_index.json").write_text('{"_class_name": "StableVideoDiffusionPipeline"}')
    blob = repository / "blobs" / "0a1b"
    blob.parent.mkdir()
    weights = snapshot / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(blob)
    weights.symlink_to(blob)
    (snapshot / ".cache" / "huggingface").mkdir(parents=True)
    shutil.copy(blob, snapshot / ".cache" / "huggingface" / "again.safetensors")
    assert [piece.kind for piece in read_sources([snapshot]).pieces] == ["diffusers-vae"]


def test_a_broken_config(tmp_path: Path) -> None:
    save_file(small_vae().state_dict(), tmp_path / "model.safetensors")
    for content, words in (
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "holds a list, expected an object"),
    ):
        (tmp_path / "config.json").write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"config\.json: {words}.*download it again"):
            read_sources([tmp_path / "model.safetensors"])


def test_two_candidates_in_a_models_folder(tmp_path: Path) -> None:
    for name in ("model.safetensors", "open_clip_model.safetensors"):
        save_file({"w": torch.ones(1)}, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({}))
    with pytest.raises(
        CheckpointError, match=r"holds 2 files of weights \(model.safetensors, open_clip.*name one of them"
    ):
        convert([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("names", ["released", "diffusers", "diffusers of old"])
def test_an_autoencoder_under_any_of_its_names(names: str, tmp_path: Path, text: tuple) -> None:
    if names == "released":
        source = text[1]["vae"]
    else:
        small_vae().save_pretrained(tmp_path / "vae")
        source = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    if names == "diffusers of old":
        old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        tensors = read_checkpoint(source)
        for new, name in old.items():
            tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): t for key, t in tensors.items()}
        save_file(tensors, source)
    convert([source], tmp_path / "out", system="hi3d")
    found = read_checkpoint(tmp_path / "out" / "vae")
    assert found.keys() == small_vae().state_dict().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in small_vae().state_dict().items())
