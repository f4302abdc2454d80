"""Files of weights: what is mapped, what is refused, and that no code of a file runs."""

import argparse
import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from engine.checkpoints.read import read_checkpoint
from engine.errors import CheckpointError

TENSORS = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3, dtype=torch.float16)}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor] = TENSORS) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


# safetensors


def test_safetensors(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    assert_equal(read_checkpoint(tmp_path / "w.safetensors"))
    assert_equal(read_checkpoint(tmp_path))
    assert read_checkpoint(tmp_path / "w.safetensors", prefix="a.").keys() == {"weight", "bias"}
    with pytest.raises(CheckpointError, match=r"holds no tensor whose name begins with b\.; its first is a.bias"):
        read_checkpoint(tmp_path / "w.safetensors", prefix="b.")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.5, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": torch.zeros(500), "v": torch.zeros(40)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=r"(is empty|is cut short or damaged).*download.* again") as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_a_header_that_begins_like_a_web_page(tmp_path: Path) -> None:
    """Its length may be any number, that of "<" too."""
    header = json.dumps({"w": F32}, separators=(",", ":")).encode().ljust(ord("<"))
    assert len(header) == ord("<")
    (tmp_path / "w.safetensors").write_bytes(raw(header, bytes(8)))
    assert_equal(read_checkpoint(tmp_path / "w.safetensors"), {"w": torch.zeros(2)})


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (raw(b"{not json}"), "JSON"),
        (raw(b'{"\xff": 1}'), "header"),
        (raw([1, 2]), "JSON"),
        (raw({}), "holds no tensors"),
        (raw({"w": F32}, b"1234567", length=1 << 60), "header too large"),
        (raw({"w": F32}, b"12345678", length=500), "header length"),
        (raw({"w": F32}, b"1234567"), "not fully covered"),
        (raw({"w": F32}, b"123456789"), "not fully covered"),
        (raw({"w": F32 | {"shape": [3]}}, b"12345678"), "offset"),
        (raw({"w": F32 | {"data_offsets": [8, 0]}}, b"12345678"), "offset"),
        (raw({"w": F32 | {"data_offsets": [8, 16]}}, b"1" * 16), "offset"),
        (raw({"v": F32, "w": F32}, b"12345678"), "offset"),
        (raw({"w": F32 | {"shape": [-2]}}, b"12345678"), "JSON"),
        (raw({"w": {"dtype": "F32"}}, b"12345678"), "JSON"),
        (raw({"w": None}, b"12345678"), "JSON"),
        (raw({"w": F32 | {"dtype": "Q4"}}, b"12345678"), "unknown variant `Q4`"),
    ],
)
def test_broken_headers(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


def test_shards(tmp_path: Path) -> None:
    save_file({"a.weight": TENSORS["a.weight"]}, tmp_path / "m-00001-of-00002.safetensors")
    save_file({"a.bias": TENSORS["a.bias"]}, tmp_path / "m-00002-of-00002.safetensors")
    index = tmp_path / "m.safetensors.index.json"
    shard_of = {"a.weight": "m-00001-of-00002.safetensors", "a.bias": "m-00002-of-00002.safetensors"}
    index.write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    assert_equal(read_checkpoint(index))
    assert_equal(read_checkpoint(tmp_path))
    index.write_text(json.dumps({"weight_map": shard_of | {"c": "m-00002-of-00002.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"c is not in m-00002-of-00002.safetensors"):
        read_checkpoint(index)
    index.write_text(json.dumps({"weight_map": {"c": "../secret.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"names the shard ../secret.safetensors, expected a file beside it"):
        read_checkpoint(index)
    index.write_text(json.dumps({"weight_map": shard_of}))
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"its shard m-00002-of-00002.safetensors is not there \(1 of 2\)"):
        read_checkpoint(index)


# torch.save


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensors: tensors,
        lambda tensors: {"state_dict": tensors, "step": 7},
        lambda tensors: {"model": tensors, "optimizer": {"x": torch.ones(1)}},
        lambda tensors: {"module": {f"module.{name}": value for name, value in tensors.items()}, "lr": 1.0},
        lambda tensors: {"module": {"state_dict": {f"model.{name}": value for name, value in tensors.items()}}},
    ],
)
def test_torch_files(
    tmp_path: Path, zipped: bool, suffix: str, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]
) -> None:
    path = tmp_path / f"w.{suffix}"
    torch.save(wrap(TENSORS), path, _use_new_zipfile_serialization=zipped)
    assert_equal(read_checkpoint(path))


def test_parts_of_a_whole_keep_their_prefixes(tmp_path: Path) -> None:
    names = ("model.diffusion_model.a", "model.diffusion_model.b")
    torch.save({"module": {f"module.{name}": torch.ones(1) for name in names}}, tmp_path / "w.pt")
    assert set(read_checkpoint(tmp_path / "w.pt")) == set(names)


def test_files_are_mapped_not_read(tmp_path: Path) -> None:
    """Of 400 MB on the disk, next to nothing is in memory after the file was opened."""
    import psutil

    big = {"w": torch.zeros(100_000_000)}
    save_file(big, tmp_path / "w.safetensors")
    torch.save({"state_dict": big}, tmp_path / "w.pth")
    del big
    for name in ("w.safetensors", "w.pth"):
        before = psutil.Process().memory_full_info().uss
        tensors = read_checkpoint(tmp_path / name)
        grown = psutil.Process().memory_full_info().uss - before
        assert tensors["w"].shape == (100_000_000,)
        # A copy would be 400 MB; headers and lazily imported code are some.
        assert grown < 100e6, name


class Evil:
    """What must never run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


class EvilSystem(Evil):
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("kind", [Evil, EvilSystem])
@pytest.mark.parametrize("zipped", [True, False, None])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, kind: type[Evil], zipped: bool | None) -> None:
    flag, path = tmp_path / "ran", tmp_path / "w.pth"
    content = {"state_dict": {"w": torch.ones(1)}, "callbacks": kind(flag)}
    if zipped is None:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"w\.pth: ") as caught:
        read_checkpoint(path)
    assert not flag.exists()
    assert "\n" not in str(caught.value)
    if zipped is not None:
        assert "holds more than tensors (it would run " in str(caught.value)
        assert "resave it where its libraries are" in str(caught.value)


def test_trainers_leftovers_are_read_as_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints of Lightning and DeepSpeed hold settings beside the tensors; their classes are not called."""
    path = tmp_path / "w.ckpt"
    settings = argparse.Namespace(learning_rate=1e-5)
    torch.save({"state_dict": TENSORS, "hyper_parameters": {"args": settings}}, path)
    calls: list[object] = []
    monkeypatch.setattr(argparse.Namespace, "__init__", lambda *arguments: calls.append(arguments))
    assert_equal(read_checkpoint(path))
    assert not calls
    assert "Namespace" not in str(torch.serialization.get_safe_globals())


def test_a_damaged_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"w": torch.zeros(5000)}, path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(CheckpointError, match="is cut short or damaged"):
        read_checkpoint(path)
    torch.save({"w": torch.zeros(5000)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(CheckpointError, match="is cut short or damaged"):
        read_checkpoint(path)


def test_nothing_to_find(tmp_path: Path) -> None:
    torch.save({"step": 7, "lr": 0.1}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds nothing but step, lr, expected tensors by name"):
        read_checkpoint(tmp_path / "w.pth")
    torch.save([torch.ones(1)], tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"holds a list, expected tensors by name \(a state dict\)"):
        read_checkpoint(tmp_path / "w.pth")


# everything else


class Doubled(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def _script() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(Doubled()), buffer)
    return buffer.getvalue()


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pretrained_models/t2v.pth", b"x")
    return buffer.getvalue()


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return buffer.getvalue()


def _numpy(save: Callable[..., None]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_script, r"is a TorchScript archive, which holds code, and is refused; .*openai/clip-vit-large-patch14"),
        (_zip, r"is a zip archive of 1 files \(pretrained_models/t2v.pth \.\.\.\): unpack it and give the folder"),
        (_tar, "is a tar archive"),
        (lambda: _numpy(np.save), "is a NumPy array"),
        (lambda: _numpy(np.savez), r"is a NumPy archive \(.npz\)"),
        (lambda: b"", "is empty; delete it, and download"),
        (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        (lambda: b"<!doctype html><html>", r"is a web page, not the weights"),
        (lambda: b"\x89HDF\r\n", "is an HDF5 file"),
        (lambda: b"GGUF\x03", "is a GGUF file"),
        (lambda: b"\x1f\x8b\x08", "is gzip; unpack it"),
        (lambda: b"hello, I am no weights", "is neither safetensors nor a file of torch.save"),
        (lambda: pickle.dumps({"w": [1.0, 2.0]}), "is a pickle, but not of torch.save"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.bin"])
def test_other_files_are_refused(tmp_path: Path, make: Callable[[], bytes], words: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder"):
        read_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="holds no weights"):
        read_checkpoint(tmp_path)
    for name in ("m.safetensors", "m.fp16.safetensors"):
        save_file(TENSORS, tmp_path / name)
    assert_equal(read_checkpoint(tmp_path))  # the full one, not its half-precision copy
    save_file(TENSORS, tmp_path / "n.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 3 files of weights \(m.fp16.safetensors, .*name one of them"):
        read_checkpoint(tmp_path)
