"""Weights from a file: a path in, tensors by name out. No code of a file ever runs, and no file is read before it is used.

    x.safetensors, x.safetensors.index.json        mapped into memory
    x.pth x.pt x.bin x.ckpt (torch.save)           mapped where the format allows (torch >= 1.6), weights_only
    a folder that holds one of these               the same

Whatever training scripts wrap around a state dict comes off: `state_dict`, DeepSpeed's `module`, DataParallel's prefix.
"""

import json
import logging
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.checkpoints.prefixes import HI3D_UNET
from engine.errors import CheckpointError

WRAPPERS = ("state_dict", "module", "model_state_dict", "model")
"""Keys under which training scripts keep the state dict, in the order in which they are tried."""
WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel and DeepSpeed, torch.compile and Lightning modules put before every name; sgm's HI3D_UNET is none."""
INERT_MODULES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.", "deepspeed.", "argparse.")
"""Trainers leave objects of these beside the tensors. They are read as empty stand-ins: their code is not run either."""
AGAIN = "delete it, and download or copy it again"
RESAVE = (
    "if you trust it, resave it where its libraries are: "
    "torch.save({'state_dict': model.state_dict()}, 'weights.pth'), or safetensors.torch.save_file"
)

log = logging.getLogger(__name__)


def read_checkpoint(path: Path | str, *, prefix: str = "") -> dict[str, Tensor]:
    """Read weights.

    Args:
        path: a file, or a folder with one set of weights.
        prefix: take the tensors whose names begin with this, and take it off.

    Returns:
        Tensors by name, as they are stored, on the CPU; mapped from the file wherever its format allows.

    Raises:
        CheckpointError: the file is missing, broken, of another kind, or would need code to be read.
    """
    file = weights_file(Path(path))
    tensors = _read_file(file)
    if not prefix:
        return tensors
    chosen = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not chosen:
        raise CheckpointError(f"{file}: holds no tensor whose name begins with {prefix}; its first is {min(tensors)}")
    return chosen


def weights_file(path: Path) -> Path:
    """Return the file that holds the weights: the path itself, or what a folder of one model holds.

    Raises CheckpointError if there is none, or more than one.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or folder")
    for pattern in (
        "*.safetensors.index.json",
        "*.safetensors",
        "*.bin.index.json",
        "*.bin",
        "*.pth",
        "*.pt",
        "*.ckpt",
    ):
        found = sorted(path.glob(pattern))
        plain = [
            file for file in found if not any(f".{variant}." in file.name for variant in ("fp16", "bf16", "non_ema"))
        ]
        if len(plain or found) == 1:
            return (plain or found)[0]
        if found:
            names = ", ".join(file.name for file in found[:4])
            raise CheckpointError(f"{path}: holds {len(found)} files of weights ({names}); name one of them")
    raise CheckpointError(f"{path}: holds no weights (*.safetensors, *.bin, *.pth, *.pt, *.ckpt); name another folder")


def _read_file(path: Path) -> dict[str, Tensor]:
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    with path.open("rb") as file:
        start = file.read(512)
    if start[8:10] in (b'{"', b"{}"):
        return _map_safetensors(path)
    if path.suffix == ".safetensors":
        _refuse_by_content(path, start)
        return _map_safetensors(path)
    if start[:4] == b"PK\x03\x04":
        _refuse_archive(path)
    elif start[:1] != b"\x80":
        _refuse_by_content(path, start)
        raise CheckpointError(f"{path}: is neither safetensors nor a file of torch.save; give one of these")
    return unwrapped(_load_pickle(path), path)


def _refuse_by_content(path: Path, start: bytes) -> None:
    """Raise CheckpointError for what people give in place of weights."""
    kinds = {
        b"": f"is empty; {AGAIN}",
        b"version https://git-lfs": "is a Git LFS pointer, not the weights; run `git lfs pull` or download the file itself",
        b"<": "is a web page, not the weights; take the address of the file itself (on the hub: resolve, not blob)",
        b"\x93NUMPY": "is a NumPy array; give the .safetensors or .pth of the release",
        b"\x89HDF": "is an HDF5 file (Keras); give the PyTorch weights, .safetensors or .pth",
        b"GGUF": "is a GGUF file; give the .safetensors or .pth of the release",
        b"\x1f\x8b": "is gzip; unpack it and give the file in it",
        b"7z\xbc\xaf": "is a 7z archive; unpack it and give the file in it",
    }
    for magic, words in kinds.items():
        if start.lstrip().startswith(magic) if magic else not start:
            raise CheckpointError(f"{path}: {words}")
    if start[257:262] == b"ustar":
        raise CheckpointError(
            f"{path}: is a tar archive (torch before 0.1.10, or several files): unpack it, or resave it as safetensors"
        )


def _refuse_archive(path: Path) -> None:
    """Raise CheckpointError unless a zip file is one of torch.save."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"{path}: is cut short or damaged ({error}); {AGAIN}") from None
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        raise CheckpointError(
            f"{path}: is a TorchScript archive, which holds code, and is refused; take the safetensors of the same "
            "network (OpenAI's ViT-L-14.pt: openai/clip-vit-large-patch14 on the hub), or resave it: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if "data.pkl" in inner:
        return
    if all(name.endswith(".npy") for name in names):
        raise CheckpointError(f"{path}: is a NumPy archive (.npz); give the .safetensors or .pth of the release")
    raise CheckpointError(
        f"{path}: is a zip archive of {len(names)} files ({names[0]} ...): unpack it and give the folder"
    )


def _map_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ").splitlines()[0][:200]
        raise CheckpointError(f"{path}: is cut short or damaged ({reason}); {AGAIN}") from None
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors; {AGAIN}")
    return tensors


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the files that an index.json names."""
    try:
        shard_of = json.loads(index.read_text())["weight_map"]
        shards = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: is no index of sharded weights ({error}); download it again") from None
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        file = index.parent / shard
        if Path(shard).name != shard or shard.endswith(".index.json"):  # a name, not a way out of the folder
            raise CheckpointError(f"{index}: names the shard {shard}, expected a file beside it")
        if not file.is_file():
            raise CheckpointError(f"{index}: its shard {shard} is not there (1 of {len(shards)}); download it too")
        tensors |= _read_file(file)
    missing = sorted(set(shard_of) - set(tensors))
    if missing:
        raise CheckpointError(f"{index}: {missing[0]} is not in {shard_of[missing[0]]}; download the shards again")
    return tensors


def _load_pickle(path: Path) -> Any:
    """Unpickle what torch.save wrote, with classes of torch's own list alone."""
    try:
        with _inert_leftovers(path), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise CheckpointError(f"{path}: {_named_code(error)} and is refused: {RESAVE}") from None
        raise CheckpointError(f"{path}: is a pickle, but not of torch.save; give the .safetensors or .pth") from None
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path}: is cut short or damaged ({reason}); {AGAIN}") from None


def _named_code(error: Exception) -> str:
    words = str(error).split()
    name = words[words.index("GLOBAL") + 1].strip("`'\",") if "GLOBAL" in words[:-1] else "something"
    return f"holds more than tensors (it would run {name})"


class _Inert:
    """Stands for an object of a trainer that nobody asks for: takes anything, keeps and does nothing."""

    def __new__(cls, *_arguments: object) -> "_Inert":
        return object.__new__(cls)

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


@contextmanager
def _inert_leftovers(path: Path) -> Iterator[None]:
    """Let trainers' own objects be read as stand-ins, for the time of one load."""
    names: list[str] = []
    if zipfile.is_zipfile(path):
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
        names = [name for name in found if name.startswith(INERT_MODULES)]
    stand_ins: list[Any] = [(_Inert, name) for name in names]
    if names:
        log.debug("%s: read without %s", path, ", ".join(names))
    with torch.serialization.safe_globals(stand_ins):
        yield


def unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the state dict in what a training script saved. Raises CheckpointError if there is none."""
    found = _state_dict(content)
    if found is None:
        keys = ", ".join(map(str, list(content)[:4])) if isinstance(content, Mapping) else ""
        kind = f"nothing but {keys}" if keys else f"a {type(content).__name__}"
        raise CheckpointError(f"{path}: holds {kind}, expected tensors by name (a state dict)")
    for prefix in WRAPPER_PREFIXES:
        wrapped = all(name.startswith(prefix) for name in found)
        if wrapped and not any(name.startswith(HI3D_UNET) for name in found):
            found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    return found


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """Return the tensors by name at the end of the wrappers, everything beside them left out."""
    if not isinstance(content, Mapping):
        return None
    for key in WRAPPERS:
        if (inner := _state_dict(content.get(key))) is not None:
            return inner
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    return tensors or None
