"""One network straight out of a released file, for those who want no pipeline: to compare, to fine-tune, to look.

network = released_network("t2v_00333000.pth")                       # TextOrbitUNet, float32, eval
lgm = released_network("t2v_00333000.pth", component="reconstructor")
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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


def on_meta(part: Component, what: str) -> Any:
    """Return a component's network without memory, its tensors checked against it; for classes with a config.

    Raises CheckpointError, as `check_fits`, if they do not fit.
    """
    with torch.device("meta"):
        network = component_class(part.class_name).from_config(dict(part.converted.config))
    check_fits(part.converted.tensors, network.state_dict(), f"{what} as {part.class_name}")
    return network


def from_state(part: Component, tensors: Mapping[str, Tensor]) -> Any:
    """Return a component around a model of transformers, with these tensors."""
    extra = () if part.extra is None else (part.extra,)
    return component_class(part.class_name).from_state(dict(part.converted.config), tensors, *extra)


def has_config(part: Component) -> bool:
    """Whether a component's class is diffusers' or like it: built from a config alone."""
    return hasattr(component_class(part.class_name), "from_config")


def _built(part: Component, what: str) -> nn.Module:
    if not has_config(part):
        made: nn.Module = from_state(part, part.converted.tensors)
        return made
    network = on_meta(part, what)
    if {name for name, _ in network.named_buffers()} - set(network.state_dict()):
        # Buffers that are no weights have no values on the meta device: a network on the CPU gives them theirs.
        network = type(network).from_config(dict(part.converted.config))
    network.load_state_dict(dict(part.converted.tensors), assign=True)
    return network
