"""One network straight out of a released file, for those who want no pipeline: to compare, to fine-tune, to look.

network = released_network("t2v_00333000.pth")                       # TextOrbitUNet, float32, eval
lgm = released_network("t2v_00333000.pth", component="reconstructor")
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.checkpoints.assemble import SYSTEMS, Choices, Component, System, assemble, system_of
from engine.checkpoints.identify import check_fits
from engine.checkpoints.layout import component_class
from engine.checkpoints.pieces import read_sources
from engine.errors import CheckpointError

RELEASED = Choices()


def released_network(
    path: Path | str,
    *,
    component: str | None = None,
    system: System | None = None,
    choices: Choices = RELEASED,
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """Build the network that a released file holds, with its weights.

    Args:
        path: a file or folder that `turntable convert` takes.
        component: which of several that are in it, such as unet, vae, reconstructor; None: the first of a system.
        system: for networks that several systems share, such as the autoencoder; None: told by the file, else videomv.
        choices: what shapes do not tell, such as the width of an attention head; the defaults are the releases'.
        dtype: of the weights.

    Returns:
        The network in eval mode, on the CPU.

    Raises:
        CheckpointError: a broken or unknown file, no such component in it, or weights that do not fit.
    """
    sources = read_sources([Path(path)])
    chosen = system or system_of(sources) or "videomv"
    components, left_out = assemble(sources, chosen, (), choices)
    found = {part.name: part for part in components}
    name = component or next((name for name in SYSTEMS[chosen] if name in found), None)
    if name is None or name not in found:
        there = ", ".join(found) or "; ".join(left_out)
        raise CheckpointError(f"{path}: holds no {component or 'network'} of {chosen}; in it: {there}")
    return _built(found[name], str(path)).to(dtype).eval()


def _built(part: Component, what: str) -> nn.Module:
    kind, converted = component_class(part.class_name), part.converted
    if not hasattr(kind, "from_config"):
        extra = () if part.extra is None else (part.extra,)
        made: nn.Module = kind.from_state(dict(converted.config), converted.tensors, *extra)
        return made
    with torch.device("meta"):
        network: Any = kind.from_config(dict(converted.config))
    check_fits(converted.tensors, network.state_dict(), f"{what} as {part.class_name}")
    # Buffers that are no weights were made on the meta device: a network on the CPU gives them their values.
    network = kind.from_config(dict(converted.config)) if _has_own_buffers(network) else network
    network.load_state_dict(dict(converted.tensors), assign=True)
    return network


def _has_own_buffers(network: nn.Module) -> bool:
    """Whether it keeps tensors that its state dict does not hold."""
    return bool({name for name, _ in network.named_buffers()} - set(network.state_dict()))
