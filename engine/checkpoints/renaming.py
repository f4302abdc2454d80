"""Tensors renamed between a release and us, both ways: every one used exactly once, every shape checked.

A network's names are a table of dotted prefixes; its shapes are those of our class, built without memory from the
configuration that the release's shapes tell. Everything works on meta tensors.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from engine.checkpoints.converted import check_keys
from engine.errors import CheckpointError, named

Shapes = Mapping[str, tuple[int, ...]]
ANOTHER = "is it a checkpoint of another network?"


@dataclass(frozen=True)
class Renaming:
    """Names of one network: ours and the release's."""

    what: str
    """Names the network in errors."""
    prefixes: Mapping[str, str] = field(default_factory=dict)
    """Our names or what stands before a dot in them -> the release's; the longest that fits is taken, what follows it
    is kept. A name that none fits is the same in the release."""
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The release's names -> our names of the tensors that it stacks on the first axis (queries, keys, values)."""
    transposed: Collection[str] = ()
    """Our names of matrices that the release keeps for `x @ weight`."""
    trailing_ones: Mapping[str, int] = field(default_factory=dict)
    """Our names of linear layers -> the number of ones behind their released shapes (convolutions of size 1)."""

    def released(self, key: str) -> str:
        """Return the release's name for one of ours that is not joined."""
        end = len(key)
        while end > 0:
            if key[:end] in self.prefixes:
                return self.prefixes[key[:end]] + key[end:]
            end = key.rfind(".", 0, end)
        return key

    def shape(self, tensors: Mapping[str, Tensor], key: str, dimensions: int) -> tuple[int, ...]:
        """Return the shape that one of our tensors will have, from the release's, to read a configuration from.

        Raises CheckpointError if it is not there or has another number of dimensions.
        """
        name = self.released(key)
        if name not in tensors:
            found = named(list(tensors)) if tensors else "nothing"
            raise CheckpointError(f"{self.what}: lacks {name}, found {found}; {ANOTHER}")
        shape, ones = tuple(tensors[name].shape), self.trailing_ones.get(key, 0)
        if len(shape) not in (dimensions, dimensions + ones):
            raise CheckpointError(
                f"{self.what}: {name} must have {dimensions + ones} dimensions, has shape {shape}; {ANOTHER}"
            )
        return shape[::-1] if key in self.transposed else shape[:dimensions]

    def shapes_of(self, build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of our network's tensors. Raises CheckpointError if it cannot be built so."""
        try:
            with torch.device("meta"):
                return {key: tuple(tensor.shape) for key, tensor in build().state_dict().items()}
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:  # what torch and diffusers raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise CheckpointError(
                f"{self.what}: has sizes that no such network can have ({reason}); {ANOTHER}"
            ) from error

    def from_release(self, tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
        """Return our tensors: those of the release themselves where nothing but the name changes, else copies.

        Args:
            tensors: the release's.
            shapes: of ours.

        Raises:
            CheckpointError: keys missing or left over, or other shapes; the message names them.
        """
        entries = self._entries(shapes)
        check_keys(self.what, tensors, entries)
        found: dict[str, Tensor] = {}
        for name, keys in entries.items():
            tensor, expected = tensors[name], self._released_shape(keys, shapes)
            if _core(tuple(tensor.shape)) != _core(expected):
                raise CheckpointError(
                    f"{self.what}: {name} must have shape {expected}, has {tuple(tensor.shape)}; {ANOTHER}"
                )
            if keys[0] in self.transposed:
                tensor = tensor.T.contiguous()
            # Parts get memory of their own: files of tensors that share it cannot be written.
            parts = (tensor,) if len(keys) == 1 else [part.clone() for part in tensor.chunk(len(keys))]
            for key, part in zip(keys, parts, strict=True):
                found[key] = part if tuple(part.shape) == shapes[key] else part.reshape(shapes[key])
        return found

    def to_release(self, tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
        """Undo from_release: our tensors under the release's names, behind a prefix, and in its shapes.

        Raises CheckpointError, naming them, if some of those that the release stacks are not there.
        """
        entries = self._entries(tensors)
        check_keys(self.what, tensors, [key for keys in entries.values() for key in keys])
        released = {}
        for name, keys in entries.items():
            tensor = torch.cat([tensors[key] for key in keys]) if len(keys) > 1 else tensors[keys[0]]
            if keys[0] in self.transposed:
                tensor = tensor.T.contiguous()
            ones = self.trailing_ones.get(keys[0], 0)
            released[prefix + name] = tensor.reshape(*tensor.shape, *[1] * ones) if ones else tensor
        return released

    def _entries(self, ours: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Return the release's name -> our names of what is in it."""
        stacked = {name: keys for name, keys in self.joined.items() if any(key in ours for key in keys)}
        joined = {key for keys in stacked.values() for key in keys}
        return {self.released(key): (key,) for key in ours if key not in joined} | stacked

    def _released_shape(self, keys: tuple[str, ...], shapes: Shapes) -> tuple[int, ...]:
        shape = list(shapes[keys[0]])
        if len(keys) > 1:
            shape[0] *= len(keys)
        if keys[0] in self.transposed:
            shape.reverse()
        return (*shape, *[1] * self.trailing_ones.get(keys[0], 0))


def _core(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the ones at its end: a linear layer and a convolution of size 1 hold the same numbers."""
    core = list(shape)
    while core and core[-1] == 1:
        core.pop()
    return tuple(core)


def behind(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def own_part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return one network's tensors of a file: those behind its prefix, without it; all if there are none."""
    return behind(tensors, prefix) or dict(tensors)


def without(tensors: Mapping[str, Tensor], starts: str | tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors whose names do not begin so."""
    return {key: tensor for key, tensor in tensors.items() if not key.startswith(starts)}


def count_children(keys: Iterable[str], parent: str) -> int:
    """Return how many numbered children a name such as `transformer.resblocks` has."""
    start = f"{parent}."
    children = {key[len(start) :].partition(".")[0] for key in keys if key.startswith(start)}
    return sum(child.isdecimal() for child in children)


def heads(what: str, width: int, head_dim: int) -> int:
    """Return the number of attention heads. Raises CheckpointError if the width does not divide into them."""
    if head_dim < 1 or width % head_dim:
        raise CheckpointError(f"{what}: head_dim {head_dim} does not divide the width {width}; pass the right one")
    return width // head_dim


def square(renaming: Renaming, tensors: Mapping[str, Tensor], key: str, dimensions: int) -> int:
    """Return how many patches a side positions are for: those of a square picture, one of its own before them.

    Raises CheckpointError if their number is no square.
    """
    patches = renaming.shape(tensors, key, dimensions)[-2] - 1
    side = round(max(patches, 0) ** 0.5)
    if side * side != patches:
        name = renaming.released(key)
        raise CheckpointError(f"{renaming.what}: {name} is for {patches} patches, expected a square number; {ANOTHER}")
    return side
