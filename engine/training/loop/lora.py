"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685) by peft: into a student, to a folder, and merged into weights.

The folder is peft's own layout (adapter_config.json, adapter_model.safetensors), so that peft's
`PeftModel.from_pretrained(student, folder)` reads it too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from engine.errors import CheckpointError, TrainingError
from engine.training.loop.names import plain_name
from engine.training.types import Task, seed_from

ADAPTER = "default"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "qkv", "attn.proj", "query", "key", "value")
"""Ends of the names of attention's projections: diffusers' networks, LGM's, transformers'."""
WHOLE = ("camera_embedding",)
"""Ends of the names of modules that are trained whole."""
WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
"""What PeftModel puts before names; ours are the bare student's."""


def add_adapters(task: Task, rank: int, seed: int) -> None:
    """Freeze a task's student and put trained adapters of a rank beside its attention's projections, in place.

    Modules that no pretrained network has (WHOLE, and the task's optional `fresh_modules`, ends of names) are trained
    whole and saved beside the adapters. A fresh adapter changes no output.

    Raises TrainingError if the student has no layer for an adapter.
    """
    student = task.student
    targets = [end for end in TARGETS if any(_ends(name, end) for name, _ in student.named_modules())]
    if not targets:
        raise TrainingError(
            f"--lora: {type(student).__name__} has no attention to put adapters beside; train it whole, without --lora"
        )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, modules_to_save=_whole_modules(task) or None)
    _inject(student, config, seed)


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _whole_modules(task: Task) -> list[str]:
    """Modules that are trained whole because they were made anew: cameras, and what the task names."""
    ends = {*WHOLE, *getattr(task, "fresh_modules", ())}
    return sorted(end for end in ends if any(_ends(name, end) for name, _ in task.student.named_modules()))


def _configs(student: Any) -> dict[str, LoraConfig]:
    """Where peft notes what it put into a network."""
    return student.peft_config


def _inject(student: nn.Module, config: LoraConfig, seed: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_from(seed, "lora"))
        inject_adapter_in_model(config, student, ADAPTER)


def is_adapted(student: nn.Module) -> bool:
    """Whether a student holds adapters."""
    return any(isinstance(module, LoraLayer) for module in student.modules())


def save_adapters(student: nn.Module, folder: Path) -> None:
    """Write a student's adapters, and what is trained beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = get_peft_model_state_dict(student, adapter_name=ADAPTER)
    save_file({PREFIX + name: t.detach().cpu().contiguous() for name, t in tensors.items()}, folder / WEIGHTS_FILE)
    _configs(student)[ADAPTER].save_pretrained(str(folder))


def load_adapters(student: nn.Module, folder: Path) -> None:
    """Put saved adapters into a student without any, in place; its output is then that of the one they were saved from.

    Raises CheckpointError if the folder holds none, or those of another network.
    """
    if not (folder / WEIGHTS_FILE).is_file() or not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(f"{folder}: holds no adapters: expected {CONFIG_FILE} and {WEIGHTS_FILE}")
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
    try:
        _inject(student, LoraConfig.from_pretrained(str(folder)), 0)
        found: Any = set_peft_model_state_dict(student, tensors, ADAPTER)
    except (ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder}: these adapters do not fit {type(student).__name__}: {error}") from error
    # Everything of the base is "missing" to peft; what matters is that no adapter stayed as it was made.
    missing = set(found.missing_keys) & {name for name, p in student.named_parameters() if p.requires_grad}
    if found.unexpected_keys or missing:
        name = sorted([*found.unexpected_keys, *missing])[0]
        raise CheckpointError(f"{folder}: these adapters are of another network than {type(student).__name__}: {name}")


@dataclass(frozen=True)
class _Layer:
    """An adapted place in a network."""

    parent: nn.Module
    name: str
    layer: Any
    """peft's LoraLayer or ModulesToSaveWrapper."""


def _layers(student: nn.Module) -> list[_Layer]:
    return [
        _Layer(parent, name, child)
        for parent in student.modules()
        for name, child in parent.named_children()
        if isinstance(child, LoraLayer | ModulesToSaveWrapper)
    ]


@torch.no_grad()
def _plain(layer: Any) -> nn.Module:
    """Return the plain module that computes the same as an adapted one; changes its base's weights."""
    if isinstance(layer, ModulesToSaveWrapper):
        return layer.modules_to_save[ADAPTER]
    base = layer.get_base_layer()
    base.weight += layer.get_delta_weight(ADAPTER).to(base.weight)
    return base


def merge_adapters(student: nn.Module) -> None:
    """Add the adapters to the weights, in place and for good: a plain network remains."""
    for place in _layers(student):
        setattr(place.parent, place.name, _plain(place.layer))
    student.requires_grad_(True)
    del student.peft_config


@contextmanager
def merged(student: nn.Module) -> Iterator[None]:
    """Let a student be the plain network with its adapters merged, to be saved; afterwards it is as before, bit by bit."""
    layers = _layers(student)
    kept: list[Tensor | None] = [
        None if isinstance(place.layer, ModulesToSaveWrapper) else place.layer.get_base_layer().weight.detach().clone()
        for place in layers
    ]
    try:
        for place in layers:
            setattr(place.parent, place.name, _plain(place.layer))
        yield
    finally:
        for place, weight in zip(layers, kept, strict=True):
            if weight is not None:
                place.layer.get_base_layer().weight.data.copy_(weight)
            setattr(place.parent, place.name, place.layer)


def trained_only(state: dict[str, Tensor], student: nn.Module) -> dict[str, Tensor]:
    """Return the part of a state that training changes: a checkpoint of adapters need not hold the frozen weights."""
    trained = {plain_name(name) for name, parameter in student.named_parameters() if parameter.requires_grad}
    return {name: tensor for name, tensor in state.items() if plain_name(name) in trained}
