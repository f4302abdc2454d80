"""Our own layout of weights, `turntable-weights/1`: a folder a pipeline, a folder in it a component.

    model_index.json            system, settings, component -> class
    README.md                   model card: licence, sources, hashes
    unet/config.json            as diffusers' and transformers' save_pretrained write them
    unet/diffusion_pytorch_model.safetensors ...

A component may lie beside the folder instead ("folders": {"vae": "../vae"}), so that pipelines share it.
Classes are looked up in CLASSES alone, so that a downloaded folder cannot name code to import.
"""

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from engine.checkpoints.converted import check_keys
from engine.errors import CheckpointError
from engine.files import write_bytes

INDEX = "model_index.json"
FORMAT = "turntable-weights/1"

CLASSES: Mapping[str, str] = {
    "TextOrbitUNet": "engine.multiview.networks.text_orbit",
    "ImageOrbitUNet": "engine.multiview.networks.image_orbit",
    "OrbitVideoUNet": "engine.multiview.networks.orbit_video",
    "TextEncoder": "engine.multiview.networks.encoders",
    "ImageEncoder": "engine.multiview.networks.encoders",
    "AestheticScorer": "engine.multiview.networks.aesthetic",
    "DepthEstimator": "engine.multiview.networks.depth",
    "GaussianUNet": "engine.splats.reconstructor.network",
    "AutoencoderKL": "diffusers.models.autoencoders.autoencoder_kl",
}
"""Class of a component -> module that holds it; each has from_pretrained and save_pretrained."""


@dataclass(frozen=True)
class WeightsIndex:
    """What model_index.json says."""

    system: str
    """videomv, hi3d or reconstructor."""
    components: Mapping[str, str]
    """Component's name, which is its folder's, -> a name of CLASSES."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the weights were trained for: the system's settings dataclass as JSON; empty for the released ones."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """Component -> ../NAME, for those that lie beside the folder because others use them too."""


def read_index(folder: Path) -> WeightsIndex:
    """Read a folder's index. Raises CheckpointError if there is none or it is not ours."""
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: holds no {INDEX}, so it is no folder of Turntable's weights; make one with `turntable convert`"
        )
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: is not JSON ({error}); convert or download the weights again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        kind = content.get("_class_name") if isinstance(content, dict) else None
        found = f"a diffusers pipeline ({kind}): make ours of it with `turntable convert`" if kind else "something else"
        raise CheckpointError(f'{path}: expected format "{FORMAT}", found {found}')
    unknown = sorted(set(content.get("components", {}).values()) - set(CLASSES))
    if unknown:
        raise CheckpointError(f"{path}: names the class {unknown[0]}, expected one of {', '.join(sorted(CLASSES))}")
    folders = content.get("folders", {})
    for name, place in folders.items():
        if not re.fullmatch(r"\.\./[\w-]+", place):  # a downloaded index must not reach anywhere else
            raise CheckpointError(f'{path}: has {name} in the folder "{place}", expected ../ and a name')
    return WeightsIndex(content["system"], content["components"], content.get("settings", {}), folders)


def write_index(folder: Path, index: WeightsIndex) -> None:
    """Write a folder's index, all or nothing."""
    content = {
        "format": FORMAT, "system": index.system, "settings": dict(index.settings), "components": dict(index.components)
    }  # fmt: skip
    if index.folders:
        content["folders"] = dict(index.folders)
    write_bytes(folder / INDEX, (json.dumps(content, indent=1) + "\n").encode())


def plain(settings: Any) -> dict[str, Any]:
    """Return a dataclass of settings as it stands in an index: with JSON's types, tuples as lists."""
    return dict(json.loads(json.dumps(asdict(settings))))


def component_class(name: str) -> Any:
    """Return a component's class, importing its module only now."""
    return getattr(importlib.import_module(CLASSES[name]), name)


def component_folder(folder: Path, index: WeightsIndex, name: str) -> Path:
    """Return where a component lies."""
    return folder / index.folders.get(name, name)


def load_component(place: Path, class_name: str, dtype: torch.dtype) -> Any:
    """Load one component from its folder. Raises CheckpointError if that is not there or does not load."""
    if not place.is_dir():
        raise CheckpointError(
            f"{place.parent}: its index names {place.name}, but the folder {place} is not there; download it again"
        )
    kind = component_class(class_name)
    try:
        # diffusers' own way to load only warns of tensors that are missing, and leaves them without values.
        if getattr(kind.from_pretrained, "__func__", None) is ModelMixin.from_pretrained.__func__:
            network, found = kind.from_pretrained(place, torch_dtype=dtype, output_loading_info=True)
            check_keys(str(place), found["unexpected_keys"], found["missing_keys"])
            return network
        return kind.from_pretrained(place, torch_dtype=dtype)
    except (OSError, ValueError, RuntimeError) as error:  # what diffusers, transformers and safetensors raise
        reason = str(error).splitlines()[0][:300]
        raise CheckpointError(
            f"{place}: does not load as {class_name} ({reason}); convert or download it again"
        ) from error
