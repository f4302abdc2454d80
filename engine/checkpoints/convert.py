"""Released weights in, a folder of ours out; and again into the same folder, for what was missing.

    files, folders --pieces--> networks --assemble--> components --> OUT/unet/config.json, *.safetensors ...
                                                                     OUT/sources.json, README.md, model_index.json

A component is written into a folder of a temporary name and moved, then the index names it: a killed conversion
leaves whole components, and the same call again makes the others.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError

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
from engine.checkpoints.layout import INDEX, WeightsIndex, component_class, read_index, write_index
from engine.checkpoints.network import from_state, has_config, on_meta
from engine.checkpoints.pieces import Sources, read_sources
from engine.checkpoints.precision import Precision, cast, check_range, size_bytes
from engine.checkpoints.space import check_space, explain_full
from engine.errors import CheckpointError
from engine.files.atomic import PARTIAL_SUFFIX, clear_partials, sync_folder
from engine.results import locked, sha256_of

WEIGHTS = "diffusion_pytorch_model{suffix}.safetensors"
"""As diffusers calls it, and its parts where there are several."""
MAX_SHARD = "2GB"
"""Largest part: so much is in memory at a time while it is written."""
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

    What an earlier call has made of the same files in the same way stays: a killed conversion is taken up again by the
    same call.

    Args:
        sources: files and folders: of VideoMV, Hi3D, LGM and what they are made of, see releases.RELEASES.
        out: the folder; new, empty, or one of an earlier call.
        system: which one the weights are for; None: what they are, or what the folder is already.
        precision: of the stored numbers; keep: each as in its file.
        replace: whether components that the folder has are written anew.
        choices: what shapes do not tell; the defaults are the releases'.
        on_progress: progress.

    Raises:
        CheckpointError: files that are broken, unknown or do not fit; a folder that holds something else or cannot be
            written; disk full.
    """
    found = read_sources([Path(path) for path in sources])
    try:
        _check_out(out)
        with _folder(out), locked(out):
            _clear_leftovers(out)
            index = _index_of(out, found, system)
            components, left_out = assemble(found, index.system, list(index.components.values()), choices)
            if not components:
                raise CheckpointError(
                    f"nothing to convert for {index.system}: {'; '.join((*left_out, *found.skipped))}"
                )
            with _begun(out, index):
                how = {"precision": precision, **asdict(choices)}
                written = _Writer(out, precision, how, replace, on_progress).write(index, components)
            index = read_index(out)
    except OSError as error:
        raise explain_full(error, out, None) from error
    return ConvertReport(
        folder=out,
        system=index.system,
        recognised=tuple(f"{file.name}: {_title(found, file)}" for file in found.files),
        written=written,
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


@contextmanager
def _begun(out: Path, index: WeightsIndex) -> Iterator[None]:
    """Make the folder ours before anything is in it, so that what a killed conversion leaves is known as its own."""
    if (out / INDEX).is_file():
        yield
        return
    write_index(out, index)
    try:
        yield
    except BaseException:
        if not read_index(out).components:
            (out / INDEX).unlink()
        raise


def _check_out(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise CheckpointError(f"{out}: is a file; name a folder")
    if out.is_dir() and not (out / INDEX).is_file():
        others = sorted(path.name for path in out.iterdir() if not path.name.endswith(PARTIAL_SUFFIX))
        if others:
            raise CheckpointError(f"{out}: holds {others[0]} and no {INDEX}; name an empty or a new folder")


def _clear_leftovers(out: Path) -> None:
    """Remove what a killed conversion left: files, and folders of components."""
    clear_partials(out)
    for path in out.glob(f"*{PARTIAL_SUFFIX}"):
        shutil.rmtree(path)


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


@dataclass(frozen=True)
class _Writer:
    """One call's components on their way into the folder."""

    out: Path
    precision: Precision
    how: Mapping[str, Any]
    """All that decides, beside the files, what a component becomes."""
    replace: bool
    on_progress: OnProgress | None

    def write(self, index: WeightsIndex, components: Sequence[Component]) -> tuple[str, ...]:
        """Write what the folder does not hold already, and return the names."""
        files = list(dict.fromkeys(piece.file for part in components for piece in part.pieces))
        digests: dict[Path, str] = {}
        for file in files:
            self._tell(f"reading {file.name}", len(digests), len(files) + len(components))
            digests[file] = sha256_of(file)
        origin = read_origin(self.out)
        parts = [part for part in components if self.replace or not self._holds(index, origin, part, digests)]
        check_space(self.out, sum(size_bytes(part, self.precision) for part in parts), f"convert into {self.out}")
        for part in parts:
            check_range(part, self.precision)
        done = len(files) + len(components) - len(parts)
        for number, part in enumerate(parts, done):
            self._tell(f"writing {part.name}", number, done + len(parts))
            origin = _extended(origin, part, _write(self.out, part, self.precision), digests, self.how)
            settings = settings_of(part.class_name) if part.name == "unet" else index.settings
            index = WeightsIndex(index.system, {**index.components, part.name: part.class_name}, settings)
            write_origin(self.out, origin, _card_title(index), _missing(self.out, index))
            write_index(self.out, index)
        self._tell("done", done + len(parts), done + len(parts))
        return tuple(part.name for part in parts)

    def _tell(self, words: str, done: int, count: int) -> None:
        if self.on_progress:
            self.on_progress(words, done, count)

    def _holds(self, index: WeightsIndex, origin: Origin, part: Component, digests: Mapping[Path, str]) -> bool:
        """Whether the folder has this component already. Raises CheckpointError if it has another one of that name."""
        if part.name not in index.components:
            return False
        made_of = {digests[piece.file] for piece in part.pieces}
        same = {source.sha256 for source in origin.sources.get(part.name, ())} == made_of
        if not same or origin.how.get(part.name) != self.how:
            raise CheckpointError(
                f"{self.out}: holds {part.name} already, made {'in another way' if same else 'of other files'}; allow "
                "replacing it (--replace), or convert into another folder"
            )
        return True


def _write(out: Path, part: Component, precision: Precision) -> dict[str, str]:
    """Write one component under a temporary name and move it; return its files' SHA-256."""
    partial = out / f"{part.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    place, old = out / part.name, out / f"{part.name}.old{PARTIAL_SUFFIX}"
    try:
        partial.mkdir()
        _save(part, partial, precision)
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
    except (OSError, SafetensorError) as error:
        if old.exists() and not place.exists():
            old.rename(place)
        raise explain_full(error, place, size_bytes(part, precision)) from error
    finally:
        for path in (partial, old):
            shutil.rmtree(path, ignore_errors=True)
    return hashes


def _synced_sha256(path: Path) -> str:
    """Bring a file to the disk and return its SHA-256."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
    return sha256_of(path)


def _save(part: Component, folder: Path, precision: Precision) -> None:
    """Write a component as its class's from_pretrained reads it."""
    tensors = cast(part, precision)
    if not has_config(part):
        with torch.device("meta"), _no_bars():  # the class's own random numbers are not wanted
            from_state(part, tensors).save_pretrained(folder)
        return
    on_meta(part, part.pieces[0].file.name).save_config(folder)
    save_torch_state_dict(tensors, folder, filename_pattern=WEIGHTS, max_shard_size=MAX_SHARD)


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


def _extended(
    origin: Origin, part: Component, hashes: Mapping[str, str], digests: Mapping[Path, str], how: Mapping[str, Any]
) -> Origin:
    files = dict.fromkeys(piece.file for piece in part.pieces)
    releases = {piece.file: piece.found.release.name for piece in part.pieces}
    sources = tuple(SourceFile(file.name, digests[file], file.stat().st_size, releases[file]) for file in files)
    kept = {name: digest for name, digest in origin.files.items() if not name.startswith(f"{part.name}/")}
    return Origin({**origin.sources, part.name: sources}, kept | dict(hashes), {**origin.how, part.name: how})


def _card_title(index: WeightsIndex) -> str:
    return {"videomv": "VideoMV", "hi3d": "Hi3D"}.get(index.system, "LGM") + ", for Turntable"


def _missing(out: Path, index: WeightsIndex) -> tuple[Missing, ...]:
    vector = None
    if index.components.get("unet") == "OrbitVideoUNet":
        config = component_class("OrbitVideoUNet").load_config(out / "unet")
        vector = config["projection_class_embeddings_input_dim"]
    return missing_of(index.system, index.components, vector)
