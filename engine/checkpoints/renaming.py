"""Renaming of a network's tensors between a release and us, both ways, every tensor used exactly once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoints.converted import check_keys, named
from engine.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(kind: type[nn.Module], config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a class's tensors without building them."""
    with torch.device("meta"):
        network = kind(**config)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def shape_at(what: str, tensors: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
    """Return the shape of a tensor from which a configuration is read; CheckpointError if it is not there."""
    if key not in tensors:
        found = named(list(tensors)) if tensors else "nothing"
        raise CheckpointError(f"{what}: lacks {key}, found {found}; is it a checkpoint of another network?")
    shape = tuple(tensors[key].shape)
    if len(shape) != dimensions:
        raise CheckpointError(
            f"{what}: {key} must have {dimensions} dimensions, has shape {shape}; is it a checkpoint of another network?"
        )
    return shape


@dataclass(frozen=True)
class Renaming:
    """Names of one network: ours and the release's."""

    prefixes: Mapping[str, str]
    """Our dotted prefixes -> the release's; the longest that fits a key is taken, what follows it is kept."""
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Released keys -> our keys whose tensors, one after another on the first axis, they hold."""
    trailing_ones: Mapping[str, int] = field(default_factory=dict)
    """Our keys of linear layers -> the number of ones behind their released shapes (convolutions of size 1)."""

    def released(self, key: str) -> str:
        """Return the release's name of one of our keys that is not joined."""
        end = len(key)
        while (end := key.rfind(".", 0, end)) > 0:
            if key[:end] in self.prefixes:
                return self.prefixes[key[:end]] + key[end:]
        raise AssertionError(f"no name for {key}")  # our own bug

    def entries(self, ours: Shapes | Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
        """Return released key -> our keys in it."""
        joined = {key for keys in self.joined.values() for key in keys}
        single = {self.released(key): (key,) for key in ours if key not in joined}
        return single | {released: keys for released, keys in self.joined.items() if keys[0] in ours}

    def from_release(self, what: str, tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
        """Return our tensors.

        Args:
            what: names the checkpoint in errors.
            tensors: the release's.
            shapes: of ours.

        Raises:
            CheckpointError: keys missing or left over, or other shapes; the message names them.
        """
        entries = self.entries(shapes)
        check_keys(what, tensors, entries)
        found: dict[str, Tensor] = {}
        for released, keys in entries.items():
            parts = (tensors[released],) if len(keys) == 1 else tensors[released].chunk(len(keys))
            for key, part in zip(keys, parts, strict=True):
                if _core(part.shape) != _core(shapes[key]):
                    raise CheckpointError(
                        f"{what}: {released} must have shape {self._released_shape(keys, shapes)}, has "
                        f"{tuple(tensors[released].shape)}; is it a checkpoint of another network, or head_dim wrong?"
                    )
                # A copy of its own for parts of one tensor: files of tensors that share memory cannot be written.
                found[key] = (part if len(keys) == 1 else part.clone()).reshape(shapes[key])
        return found

    def to_release(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under the release's names and shapes."""
        released = {}
        for name, keys in self.entries(tensors).items():
            tensor = torch.cat([tensors[key] for key in keys]) if len(keys) > 1 else tensors[keys[0]]
            released[name] = tensor.reshape(*tensor.shape, *[1] * self.trailing_ones.get(keys[0], 0))
        return released

    def _released_shape(self, keys: tuple[str, ...], shapes: Shapes) -> tuple[int, ...]:
        first, *rest = shapes[keys[0]]
        return (first * len(keys), *rest, *[1] * self.trailing_ones.get(keys[0], 0))


def _core(shape: tuple[int, ...] | torch.Size) -> tuple[int, ...]:
    """A shape without the ones at its end: a linear layer and a convolution of size 1 hold the same numbers."""
    core = list(shape)
    while core and core[-1] == 1:
        core.pop()
    return tuple(core)
