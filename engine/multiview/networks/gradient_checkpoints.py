"""Gradient checkpointing for any network: chosen layers forget their inside and compute it again in the backward pass.

diffusers has it for some of its networks only (not for UNet3DConditionModel, I2VGenXLUNet), so it is done here from
outside: a layer's `forward` is replaced on the instance. State dicts, copies and hooks are not touched by it.
(Chen et al. 2016, Training deep nets with sublinear memory cost.)
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputed:
    """A layer's forward that keeps its inputs only. Holds the layer, so that a deep copy's points to the copied one."""

    def __init__(self, layer: nn.Module, own: Callable[..., Any] | None = None) -> None:
        """Wrap a layer's forward: `own`, where others put one on the instance (accelerate's hooks), or its class's."""
        self.layer, self.own = layer, own

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it; the random state is kept, so that dropout repeats itself."""
        forward = self.own or partial(type(self.layer).forward, self.layer)
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)


def checkpoint_layers(network: nn.Module, kinds: tuple[type[nn.Module], ...], enabled: bool = True) -> int:
    """Switch checkpointing of a network's layers on or off.

    Args:
        network: any module.
        kinds: classes of the layers to checkpoint, none of them inside another.
        enabled: on or off.

    Returns:
        The number of layers.

    Raises:
        ValueError: the network has no such layer.
    """
    layers = [module for module in network.modules() if isinstance(module, kinds)]
    if not layers:
        names = ", ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{type(network).__name__} has no {names} to checkpoint; name the classes of its layers")
    for layer in layers:
        own = layer.__dict__.pop("forward", None)
        own = own.own if isinstance(own, Recomputed) else own
        if enabled:
            layer.forward = Recomputed(layer, own)
        elif own is not None:
            layer.forward = own
    return len(layers)


class GradientCheckpoints:
    """Mixin: diffusers' switches for networks that have none. Put it before the network's class."""

    checkpointed: ClassVar[tuple[type[nn.Module], ...]]
    """Classes of the layers that are checkpointed."""
    _supports_gradient_checkpointing: ClassVar[bool] = True
    gradient_checkpointing: bool = False

    def enable_gradient_checkpointing(self, gradient_checkpointing_func: Callable[..., Any] | None = None) -> None:
        """Save memory in training for about a third more time; same loss, same gradients."""
        if gradient_checkpointing_func is not None:
            raise ValueError("gradient_checkpointing_func is not supported; call enable_gradient_checkpointing()")
        self._switch(True)

    def disable_gradient_checkpointing(self) -> None:
        """Undo enable_gradient_checkpointing."""
        self._switch(False)

    def _switch(self, enabled: bool) -> None:
        checkpoint_layers(self, self.checkpointed, enabled)  # type: ignore[arg-type]  # the network it is mixed into
        self.gradient_checkpointing = enabled
