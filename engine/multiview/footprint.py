"""What a forward pass costs, computed without a device: bytes of weights, peak of activations, multiply-adds.

The network is built on the meta device and called; every tensor that lives is counted, attention as a fused kernel
(its score matrix is never stored). An estimate: an allocator's rounding and a library's workspaces come on top.
"""

import weakref
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Footprint:
    """One forward pass, without gradients."""

    parameters: int
    """Number of parameters and buffers' elements."""
    weight_bytes: int
    """Bytes of the parameters and buffers."""
    peak_activation_bytes: int
    """Most bytes that lived at once besides the weights and the inputs."""
    flop: int
    """Floating point operations: two for each multiply-add of matrix products, convolutions and attention."""


def footprint(network: nn.Module, call: Callable[[], Any]) -> Footprint:
    """Run a call of a network on the meta device and count.

    Args:
        network: all of whose parameters are on the meta device.
        call: runs it on meta tensors.

    Raises ValueError if the network is not on the meta device.
    """
    parts = [*network.parameters(), *network.buffers()]
    if any(part.device.type != "meta" for part in parts):
        raise ValueError("footprint wants a network on the meta device: build it under torch.device('meta')")
    living, attention = Living(), _FusedAttention()
    counter = FlopCounterMode(display=False)
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for mode in (counter, living, attention):
            stack.enter_context(mode)
        call()
    return Footprint(
        sum(part.numel() for part in parts),
        sum(part.numel() * part.element_size() for part in parts),
        living.peak,
        counter.get_total_flops() + attention.flop,
    )


class Living(TorchDispatchMode):
    """Adds up the storages that operators make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.now = self.peak = 0
        self._seen: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        made = function(*arguments, **(keywords or {}))
        given = {
            leaf.untyped_storage()._cdata for leaf in tree_leaves((arguments, keywords)) if isinstance(leaf, Tensor)
        }
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage()._cdata not in given:
                self._add(leaf.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def freed(_: Any) -> None:
            self.now -= size
            del self._seen[key]

        self._seen[key] = weakref.ref(storage, freed)


class _FusedAttention(TorchFunctionMode):
    """Replaces attention by its output's shape; on the meta device torch would store the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        keywords = keywords or {}
        if function is not nn.functional.scaled_dot_product_attention:
            return function(*arguments, **keywords)
        query, key, value = (
            arguments[i] if i < len(arguments) else keywords[name] for i, name in enumerate(("query", "key", "value"))
        )
        rows = query.shape[:-1].numel()
        self.flop += 2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        return query.new_empty(*query.shape[:-1], value.shape[-1])
