"""Files and folders, as they are downloaded, taken apart into the networks that they hold.

file               each network in it
folder of one model (config.json), of a diffusers pipeline (model_index.json), or of any files: what is in it
tokenizer          a folder with tokenizer.json or merges.txt, or OpenCLIP's bpe_simple_vocab_16e6.txt.gz
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoints.identify import Found, identify
from engine.checkpoints.layout import FORMAT, INDEX
from engine.checkpoints.read import read_checkpoint, weights_file
from engine.errors import CheckpointError

WEIGHT_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}
TOKENIZER_FILES = ("tokenizer.json", "merges.txt")
OPENCLIP_TOKENIZER = ".txt.gz"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Piece:
    """One network of a source; equal to itself alone."""

    kind: str
    """Of identify.KINDS."""
    prefix: str
    """What its names began with in the file."""
    tensors: Mapping[str, Tensor]
    """By name, without the prefix."""
    file: Path
    """Where they are."""
    found: Found
    """What the whole file is."""
    config: Mapping[str, Any] | None
    """The config.json beside the file; None where there is none."""


@dataclass(frozen=True)
class Sources:
    """What was given."""

    pieces: tuple[Piece, ...]
    """Networks, in the order in which their files were given."""
    tokenizer: Path | None
    """A tokenizer's folder or file."""
    skipped: tuple[str, ...]
    """Files of folders that are nothing that this project knows, and why."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold networks."""
        return tuple(dict.fromkeys(piece.file for piece in self.pieces))


def read_sources(paths: Iterable[Path]) -> Sources:
    """Take files and folders apart; a file that is given twice, under whatever name, counts once.

    Raises CheckpointError for a file that is given by name and is not known; such files in a folder are skipped.
    """
    pieces: list[Piece] = []
    skipped: list[str] = []
    tokenizers: list[Path] = []
    seen: set[Path] = set()
    for path in paths:
        try:
            if not path.exists():
                raise CheckpointError(f"{path}: no such file or folder")
            if is_tokenizer(path):
                tokenizers.append(path)
            elif path.is_file():
                pieces += _pieces(path, seen)
            else:
                more, words, inside = _of_folder(path, seen)
                pieces, skipped, tokenizers = pieces + more, skipped + words, tokenizers + inside
        except OSError as error:
            raise CheckpointError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from error
    if not seen and not skipped and not tokenizers:
        raise CheckpointError("no file of weights was given; name files, folders, hub ids or https addresses")
    if not pieces and not tokenizers:
        raise CheckpointError(f"no weights that this project knows: {'; '.join(skipped)}")
    return Sources(tuple(pieces), tokenizers[0] if tokenizers else None, tuple(skipped))


def is_tokenizer(path: Path) -> bool:
    """Whether this is a tokenizer on its own."""
    if path.is_file():
        return path.name.endswith(OPENCLIP_TOKENIZER)
    return any((path / name).is_file() for name in TOKENIZER_FILES) and not any(_weights_in(path))


def _weights_in(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES and file.is_file())


def _of_folder(folder: Path, seen: set[Path]) -> tuple[list[Piece], list[str], list[Path]]:
    """Return networks, what was skipped and tokenizers of a folder and the folders in it."""
    _refuse_own(folder)
    pieces: list[Piece] = []
    skipped: list[str] = []
    inside = sorted(path for path in folder.rglob("*") if path.is_dir())
    # The hub's client keeps its books in .cache; the folder itself may well lie in one.
    places = [folder, *(path for path in inside if ".cache" not in path.relative_to(folder).parts)]
    pipeline = (folder / INDEX).is_file()  # the single files beside a pipeline's folders hold the same once more
    for place in places:
        for file in _candidates(place) if place != folder or not pipeline else ():
            try:
                pieces += _pieces(file, seen)
            except CheckpointError as error:
                skipped.append(str(error))
                log.info("skipped %s", error)
    return pieces, skipped, [place for place in places if is_tokenizer(place)]


def _candidates(place: Path) -> list[Path]:
    """Return a folder's files of weights: one where it is a model's folder, else all."""
    files = sorted(_weights_in(place))
    if files and ((place / "config.json").is_file() or any(place.glob("*.index.json"))):
        return [weights_file(place)]
    return files


def _refuse_own(folder: Path) -> None:
    index = folder / INDEX
    if index.is_file() and FORMAT.encode() in index.read_bytes():
        raise CheckpointError(f"{folder}: is a folder of Turntable's weights already; give it to --weights as it is")


def _pieces(file: Path, seen: set[Path]) -> list[Piece]:
    """Return the networks of a file; none if it was seen before."""
    if file.resolve() in seen:
        return []
    seen.add(file.resolve())
    tensors, config = read_checkpoint(file), _config_beside(file)
    found = identify(tensors, file_name=file.name if config is None else f"{_model_name(file)}/{file.name}")
    pieces = []
    for part in found.parts:
        own = {
            name.removeprefix(part.prefix): tensor
            for name, tensor in tensors.items()
            if _belongs(name, part.prefix, found)
        }
        pieces.append(Piece(part.kind, part.prefix, own, file, found, config))
    return pieces


def _model_name(file: Path) -> str:
    """What the folder around a model's parts is called; in the hub's cache that is a hash, the repository is above."""
    parts = file.absolute().parts
    return parts[parts.index("snapshots") - 1] if "snapshots" in parts else file.absolute().parent.parent.name


def _config_beside(file: Path) -> Mapping[str, Any] | None:
    path = file.parent / "config.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:  # UnicodeDecodeError too
        raise CheckpointError(f"{path}: is not JSON ({error}); download it again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object; download it again")
    return content


def _belongs(name: str, prefix: str, found: Found) -> bool:
    """Whether a name is of the part with this prefix; the part without a prefix has the names that no other one has."""
    if prefix:
        return name.startswith(prefix)
    return name not in found.unused and not any(part.prefix and name.startswith(part.prefix) for part in found.parts)
