"""What a key map gives: a network's configuration and its tensors under our names."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from engine.errors import CheckpointError, named


@dataclass(frozen=True)
class Converted:
    """One component, ready to be loaded or saved."""

    config: Mapping[str, Any]
    """The class's constructor arguments, inferred from the shapes."""
    tensors: Mapping[str, Tensor]
    """The class's state dict."""


def check_keys(what: str, found: Collection[str], expected: Collection[str]) -> None:
    """Raise CheckpointError, naming them, unless the two hold the same keys."""
    missing, left_over = set(expected) - set(found), set(found) - set(expected)
    if missing or left_over:
        parts = [f"lacks {named(missing)}"] if missing else []
        parts += [f"has unknown keys {named(left_over)}"] if left_over else []
        raise CheckpointError(f"{what}: {' and '.join(parts)}; is it a checkpoint of another network?")
