"""Which weights a preset is given: where they are, what they were trained for, what tells them from others.

Reads indexes and hashes, loads no network: a rerun that finds everything made needs no more.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from engine import checkpoints
from engine.checkpoints.hub import fetch
from engine.checkpoints.layout import INDEX, WeightsIndex, read_index
from engine.errors import CheckpointError, TurntableError
from engine.multiview.orbits import KnownViews
from engine.multiview.settings import Hi3DSettings, VideoMVSettings
from engine.presets import PRESETS, Preset, Source, settings_for
from engine.results import sha256_of

Settings = VideoMVSettings | Hi3DSettings
KINDS: Mapping[str, type[VideoMVSettings] | type[Hi3DSettings]] = {"videomv": VideoMVSettings, "hi3d": Hi3DSettings}
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}
ENDS = 2**20
"""Bytes at either end of a file that tell it from others: the header of safetensors is among them."""
MINI = Path(checkpoints.__file__).parent / "mini"
"""The small weights that come with Turntable."""
RETIRED = {"reconstructor_views"}
"""Settings that folders of earlier versions name and that mean nothing any more."""


def settings_of(index: WeightsIndex, folder: Path) -> Settings:
    """Return what weights were trained for; raises CheckpointError for an unknown system or settings that do not fit."""
    if index.system not in KINDS:
        raise CheckpointError(f"{folder}: holds weights of {index.system}, expected {' or '.join(KINDS)}")
    return _made(KINDS[index.system], index.settings, folder)


def _made(kind: type[Any], values: Mapping[str, Any], folder: Path) -> Any:
    """Make a settings dataclass of JSON; lists become tuples, and `views` the orbits that the weights know."""
    known = {field.name for field in fields(kind)}
    values = {name: value for name, value in values.items() if name not in RETIRED}
    if not set(values) <= known:
        unknown = sorted(set(values) - known)[0]
        raise CheckpointError(
            f"{folder}: its index has the setting {unknown}, unknown to {kind.__name__}; convert it again"
        )
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if isinstance(plain.get("views"), Mapping):
        plain["views"] = _made(KnownViews, plain["views"], folder)
    return kind(**plain)


def weights_for(preset: Preset, source: Source, weights: str | None) -> str | None:
    """Return the weights that a preset runs with: those given, else its own. The functions below take these.

    Raises TurntableError: a source that the preset does not take, or its own weights are not installed.
    """
    settings_for(preset, source)
    if weights is not None or preset.weights != "bundled":
        return weights
    folder = MINI / preset.bundled[source]
    if not (folder / INDEX).is_file():
        raise TurntableError(
            f"--preset {preset.name}: its weights that start from a {source} are not in {folder}; train them with "
            "`make train-mini`, or give others with --weights"
        )
    return str(folder)


def settings_asked(preset: Preset, source: Source, weights: str | None) -> Settings:
    """Return what a preset's weights were trained for, and check that they fit before anything is made.

    Raises:
        TurntableError: a source that the preset does not take, no weights given, or weights given to random ones.
        CheckpointError: no folder of weights, or those of another system or source; the error says which preset fits.
    """
    settings = settings_for(preset, source)
    if preset.weights == "random":
        if weights is not None:
            others = [p.name for p in PRESETS.values() if p.system == preset.system and p.weights != "random"]
            raise TurntableError(
                f"--preset {preset.name} has random weights: leave --weights, or take {' or '.join(others)}"
            )
        return settings
    folder = weights_folder(preset, weights)
    index = read_index(folder)
    trained = settings_of(index, folder)
    kind: Source = trained.kind if isinstance(trained, VideoMVSettings) else "picture"
    if index.system != preset.system or kind != source:
        fits = [
            p.name
            for p in PRESETS.values()
            if p.system == index.system and kind in p.settings and p.weights != "random"
        ]
        raise CheckpointError(
            f"{folder}: holds weights of {index.system} that start from a {kind}, which --preset {preset.name} cannot "
            f"use from a {source}; take --preset {' or '.join(fits)}"
        )
    return trained


def check_reconstructor(preset: Preset, weights: str | None) -> None:
    """Raise TurntableError unless a preset's weights hold a reconstructor, which makes splats of views in one go."""
    if preset.system != "videomv":
        fits = [p.name for p in PRESETS.values() if p.system == "videomv"]
        raise TurntableError(
            f"--splats feed-forward needs a reconstructor, got --preset {preset.name}, which has none; take --splats fit, "
            f"or --preset {' or '.join(fits)}"
        )
    if preset.weights == "random":
        return
    folder = weights_folder(preset, weights)
    held = read_index(folder).components
    if "reconstructor" not in held:
        raise CheckpointError(
            f"{folder}: --splats feed-forward needs a reconstructor, found {', '.join(held)} alone; take --splats fit, or "
            "add one to the folder with `turntable convert`"
        )


def weights_folder(preset: Preset, weights: str | None) -> Path:
    """Return the folder of a preset's weights, downloading it if need be."""
    if weights is None:
        raise TurntableError(
            f"--preset {preset.name} needs --weights: a folder that `turntable convert` made of the released files, or "
            "the hub id of such a folder"
        )
    folder = _fetched(weights)
    if folder.is_file():
        _refuse_file(folder, preset)
    return folder


@functools.cache
def _fetched(weights: str) -> Path:
    """Ask the hub once a process: downloads are checked whole, which takes a while for gigabytes."""
    return fetch(weights)


def _refuse_file(path: Path, preset: Preset) -> NoReturn:
    """Say what a single file of weights is, whether it fits the preset, and how it becomes a folder."""
    from engine.checkpoints.identify import check_preset, identify
    from engine.checkpoints.read import read_checkpoint

    found = identify(read_checkpoint(path), file_name=path.name)
    check_preset(found, preset.name, str(path))
    raise CheckpointError(
        f"{path}: is {found.words} in a single file, expected a folder of Turntable's weights; make one with "
        f"`turntable convert {path} --out FOLDER`"
    )


def weights_key(preset: Preset, weights: str | None) -> dict[str, Any]:
    """Return what tells these weights from others, cheaply: names, sizes and the ends of all files."""
    if preset.weights == "random":
        return {"random": preset.name}
    folder = weights_folder(preset, weights)
    digest = hashlib.sha256()
    for path in _files(folder):
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(ENDS)
            file.seek(max(size - ENDS, 0))
            digest.update(f"{path.relative_to(folder)} {size}".encode() + head + file.read(ENDS))
    return {"files": digest.hexdigest()[:16]}


def describe_weights(preset: Preset, weights: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what the report says: every weight file with its SHA-256, and the licences that came with them."""
    if preset.weights == "random":
        return [{"name": preset.name, "random": True, "note": "random weights: the result is noise"}], []
    folder = weights_folder(preset, weights)
    files = [
        {"name": str(path.relative_to(folder)), "sha256": sha256_of(path)}
        for path in _files(folder)
        if path.suffix in WEIGHT_SUFFIXES
    ]
    return files, _licences(folder)


def _files(folder: Path) -> list[Path]:
    shared = [folder / place for place in read_index(folder).folders.values()] if (folder / INDEX).is_file() else []
    return sorted(
        path
        for place in (folder, *shared)
        for path in place.rglob("*")
        if path.is_file() and (path.suffix in WEIGHT_SUFFIXES or path.name == INDEX)
    )


def _licences(folder: Path) -> list[dict[str, Any]]:
    """What the conversion wrote down about the files' origin."""
    path = folder / "sources.json"
    return list(json.loads(path.read_text())["licences"]) if path.is_file() else []
