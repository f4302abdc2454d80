"""Released weights in, a folder of ours out; and again into the same folder, for what was missing.

    files, folders --pieces--> networks --assemble--> components --> OUT/unet/config.json, *.safetensors ...
                                                                     OUT/sources.json, README.md, model_index.json

A component is written into a folder of a temporary name and moved, then the index names it: a killed conversion
leaves whole components, and what it had not come to is missing, as if it had not been given.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from engine.checkpoints.assemble import (
    SYSTEMS,
    Choices,
    Component,
    Missing,
    System,
    assemble,
    missing_of,
    settings_of,
    system_of,
)
from engine.checkpoints.card import Origin, SourceFile, read_origin, write_origin
from engine.checkpoints.identify import check_fits
from engine.checkpoints.layout import INDEX, WeightsIndex, component_class, read_index, write_index
from engine.checkpoints.pieces import Sources, read_sources
from engine.checkpoints.safetensors_file import write_tensors
from engine.checkpoints.space import check_space, explain_full
from engine.errors import CheckpointError
from engine.files.atomic import PARTIAL_SUFFIX, sync_folder
from engine.results import locked, sha256_of

Precision = Literal["keep", "fp16", "bf16", "fp32"]
DTYPES: Mapping[str, torch.dtype | None] = {
    "keep": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32,
}  # fmt: skip
WEIGHTS = "diffusion_pytorch_model.safetensors"
"""As diffusers calls it."""
OnProgress = Callable[[str, int, int], None]
"""Called with what is done now, how many such steps are done, and of how many."""
RELEASED_CHOICES = Choices()


@dataclass(frozen=True)
class ConvertReport:
    """What a conversion did."""

    folder: Path
    """The folder of weights."""
    system: str
    """videomv, hi3d or reconstructor."""
    recognised: tuple[str, ...]
    """Every file that was read: its name, and what it is."""
    written: tuple[str, ...]
    """Components that were written now."""
    components: Mapping[str, str]
    """All components of the folder by now, with their classes."""
    missing: tuple[Missing, ...]
    """What the folder does not have yet, and where to get it."""
    left_out: tuple[str, ...]
    """What was found and not used, and why."""

    @property
    def runs(self) -> bool:
        """Whether the folder has all that its system needs."""
        return not any(one.required for one in self.missing)


def convert(
    sources: Sequence[Path],
    out: Path,
    *,
    system: System | None = None,
    precision: Precision = "keep",
    replace: bool = False,
    choices: Choices = RELEASED_CHOICES,
    on_progress: OnProgress | None = None,
) -> ConvertReport:
    """Convert released weights, or add to a folder that was converted before.

    Args:
        sources: files and folders: of VideoMV, Hi3D, LGM and what they are made of, see releases.RELEASES.
        out: the folder; new, empty, or one of an earlier call.
        system: which one the weights are for; None: what they are, or what the folder is already.
        precision: of the stored numbers; keep: each as in its file.
        replace: whether components that the folder has are written anew.
        choices: what shapes do not tell; the defaults are the releases'.
        on_progress: progress.

    Raises:
        CheckpointError: files that are broken, unknown or do not fit; a folder that holds something else; disk full.
    """
    found = read_sources([Path(path) for path in sources])
    _check_out(out)
    with _folder(out), locked(out):
        _clear_leftovers(out)
        index = _index_of(out, found, system)
        components, left_out = assemble(found, index.system, list(index.components.values()), choices)
        held = [part.name for part in components if part.name in index.components]
        if held and not replace:
            raise CheckpointError(
                f"{out}: holds {', '.join(held)} already; allow replacing it, or convert into another folder"
            )
        if not components:
            raise CheckpointError(f"nothing to convert for {index.system}: {'; '.join((*left_out, *found.skipped))}")
        index = _write_all(out, index, components, found, precision, on_progress)
    return ConvertReport(
        folder=out,
        system=index.system,
        recognised=tuple(f"{file.name}: {_title(found, file)}" for file in found.files),
        written=tuple(part.name for part in components),
        components=dict(index.components),
        missing=_missing(out, index),
        left_out=(*left_out, *found.skipped),
    )


@contextmanager
def _folder(out: Path) -> Iterator[None]:
    """Make the folder, and take it away again if it stays empty."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty
            out.rmdir()
        raise


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; name a folder")
    if out.is_dir() and not (out / INDEX).is_file():
        others = sorted(path.name for path in out.iterdir() if not path.name.endswith(PARTIAL_SUFFIX))
        if others:
            raise CheckpointError(f"{out}: holds {others[0]} and no {INDEX}; name an empty or a new folder")


def _clear_leftovers(out: Path) -> None:
    """Remove what a killed conversion left."""
    for path in out.glob(f"*{PARTIAL_SUFFIX}"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _index_of(out: Path, found: Sources, system: System | None) -> WeightsIndex:
    """Return the folder's index, or the one that it begins with. Raises CheckpointError if the sources are of another."""
    told = system_of(found)
    if (out / INDEX).is_file():
        index = read_index(out)
        if system not in (None, index.system):
            raise CheckpointError(f"{out}: is a folder of {index.system}, not of {system}; name another folder")
        return index
    chosen = system or told
    if chosen is None:
        kinds = ", ".join(dict.fromkeys(piece.found.release.title for piece in found.pieces)) or "a tokenizer"
        raise CheckpointError(
            f"{kinds}: belongs to several systems; convert the system's own weights too, or say which system it is for "
            f"({', '.join(SYSTEMS)})"
        )
    return WeightsIndex(chosen, {})


def _title(found: Sources, file: Path) -> str:
    return next(piece.found.release.title for piece in found.pieces if piece.file == file)


def _write_all(
    out: Path,
    index: WeightsIndex,
    components: Sequence[Component],
    found: Sources,
    precision: Precision,
    on_progress: OnProgress | None,
) -> WeightsIndex:
    dtype = DTYPES[precision]
    check_space(out, sum(_size(part, dtype) for part in components), f"convert into {out}")
    files = list(dict.fromkeys(piece.file for part in components for piece in part.pieces))
    steps = len(files) + len(components)
    tell = on_progress or (lambda _words, _done, _count: None)
    origin = read_origin(out)
    digests: dict[Path, str] = {}
    for done, file in enumerate(files):
        tell(f"reading {file.name}", done, steps)
        digests[file] = sha256_of(file)
    for done, part in enumerate(components, len(files)):
        tell(f"writing {part.name}", done, steps)
        hashes = _write(out, part, dtype)
        settings = settings_of(part.class_name) if part.name == "unet" else index.settings
        index = WeightsIndex(index.system, {**index.components, part.name: part.class_name}, settings)
        origin = _extended(origin, part, hashes, digests)
        write_origin(out, origin, _card_title(index), _missing(out, index))
        write_index(out, index)
    tell("done", steps, steps)
    return index


def _size(part: Component, dtype: torch.dtype | None) -> int:
    return sum(
        tensor.numel() * (dtype if dtype and tensor.is_floating_point() else tensor.dtype).itemsize
        for tensor in part.converted.tensors.values()
    )


def _write(out: Path, part: Component, dtype: torch.dtype | None) -> dict[str, str]:
    """Write one component under a temporary name and move it; return its files' SHA-256."""
    partial = out / f"{part.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    place, old = out / part.name, out / f"{part.name}.old{PARTIAL_SUFFIX}"
    try:
        partial.mkdir()
        _save(part, partial, dtype)
        hashes = {f"{part.name}/{path.name}": _synced_sha256(path) for path in sorted(partial.iterdir())}
        if place.exists():
            place.rename(old)
        partial.rename(place)
        sync_folder(out)
    except (ValueError, RuntimeError, TypeError) as error:  # the class refuses these sizes
        raise CheckpointError(
            f"{part.pieces[0].file.name}: makes no {part.class_name} ({str(error).splitlines()[0][:200]}); is it a "
            "checkpoint of another network, or of other choices than the releases'?"
        ) from error
    except OSError as error:
        if old.exists() and not place.exists():
            old.rename(place)
        raise explain_full(error, place, _size(part, dtype)) from error
    finally:
        for path in (partial, old):
            shutil.rmtree(path, ignore_errors=True)
    return hashes


def _synced_sha256(path: Path) -> str:
    """Bring a file to the disk and return its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return sha256_of(path)


def _save(part: Component, folder: Path, dtype: torch.dtype | None) -> None:
    """Write a component as its class's from_pretrained reads it."""
    kind, converted = component_class(part.class_name), part.converted
    with torch.device("meta"):  # the class's own random numbers are not wanted
        if hasattr(kind, "from_config"):
            network = kind.from_config(dict(converted.config))
        else:
            extra = () if part.extra is None else (part.extra,)
            network = kind.from_state(dict(converted.config), _cast(converted.tensors, dtype), *extra)
    if not hasattr(kind, "from_config"):
        with _no_bars():
            network.save_pretrained(folder)
        return
    check_fits(converted.tensors, network.state_dict(), f"{part.pieces[0].file.name} as {part.class_name}")
    network.save_config(folder)
    with (folder / WEIGHTS).open("wb") as file:  # tensor by tensor: no more than one is in memory
        write_tensors(file, converted.tensors, dtype, getattr(kind, "_keep_in_fp32_modules", None) or ())


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own."""
    from transformers.utils import logging as transformers_logging

    drawn = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            transformers_logging.enable_progress_bar()


def _cast(tensors: Mapping[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    return {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor for name, tensor in tensors.items()
    }


def _extended(origin: Origin, part: Component, hashes: Mapping[str, str], digests: Mapping[Path, str]) -> Origin:
    files = dict.fromkeys(piece.file for piece in part.pieces)
    releases = {piece.file: piece.found.release.name for piece in part.pieces}
    sources = tuple(SourceFile(file.name, digests[file], file.stat().st_size, releases[file]) for file in files)
    kept = {name: digest for name, digest in origin.files.items() if not name.startswith(f"{part.name}/")}
    return Origin({**origin.sources, part.name: sources}, kept | dict(hashes))


def _card_title(index: WeightsIndex) -> str:
    return {"videomv": "VideoMV", "hi3d": "Hi3D"}.get(index.system, "LGM") + ", for Turntable"


def _missing(out: Path, index: WeightsIndex) -> tuple[Missing, ...]:
    vector = None
    if index.components.get("unet") == "OrbitVideoUNet":
        config = component_class("OrbitVideoUNet").load_config(out / "unet")
        vector = config["projection_class_embeddings_input_dim"]
    return missing_of(index.system, index.components, vector)
