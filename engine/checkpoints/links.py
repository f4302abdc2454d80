"""How tensors are renamed between a release and our classes: a list of links, read in either direction."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.checkpoints.converted import check_keys
from engine.errors import CheckpointError


@dataclass(frozen=True)
class Link:
    """One tensor of a release and what it is called here."""

    release: str
    """Name in the release."""
    ours: tuple[str, ...]
    """Our name; several where the release stacks them along the first axis (queries, keys, values)."""
    transposed: bool = False
    """The release keeps `x @ weight`, we keep Linear's weight."""


def parameters(release: str, ours: str) -> list[Link]:
    """Link a layer's weight and bias."""
    return [Link(f"{release}.{kind}", (f"{ours}.{kind}",)) for kind in ("weight", "bias")]


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors behind a prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def count_blocks(keys: Iterable[str], prefix: str) -> int:
    """Return how many numbers follow a prefix such as `transformer.resblocks.`: 1 + the largest; 0 if none does."""
    numbers = (key.removeprefix(prefix).split(".", 1)[0] for key in keys if key.startswith(prefix))
    return max((1 + int(number) for number in numbers if number.isdecimal()), default=0)


def to_ours(what: str, links: Sequence[Link], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a release's tensors, each exactly once. Raises CheckpointError naming missing and unknown ones."""
    check_keys(what, tensors, {link.release for link in links})
    ours: dict[str, Tensor] = {}
    for link in links:
        tensor = tensors[link.release]
        if tensor.ndim and tensor.shape[0] % len(link.ours):
            raise CheckpointError(
                f"{what}: {link.release} stacks {len(link.ours)} tensors, so its first size must divide by that, found "
                f"shape {tuple(tensor.shape)}; is it a checkpoint of another network?"
            )
        parts = tensor.chunk(len(link.ours)) if len(link.ours) > 1 else (tensor.T if link.transposed else tensor,)
        ours.update(zip(link.ours, (part.contiguous() for part in parts), strict=True))
    return ours


def to_release(what: str, links: Sequence[Link], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo to_ours. Raises CheckpointError naming missing and unknown tensors."""
    check_keys(what, tensors, {name for link in links for name in link.ours})
    release: dict[str, Tensor] = {}
    for link in links:
        parts = [tensors[name] for name in link.ours]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        release[link.release] = joined.T.contiguous() if link.transposed else joined
    return release


def shape_of(what: str, tensors: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    """Return a tensor's shape. Raises CheckpointError if it is not there or has another number of axes."""
    if key not in tensors:
        raise CheckpointError(f"{what}: lacks {key}; is it a checkpoint of another network?")
    shape = tuple(tensors[key].shape)
    if len(shape) != ndim:
        raise CheckpointError(
            f"{what}: {key} must have {ndim} axes, found shape {shape}; is it a checkpoint of another network?"
        )
    return shape
