"""Names of parameters as the network has them, without what DDP, FSDP and torch.compile put around it."""

from torch import nn

from engine.results import fingerprint

WRAPPERS = ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_orig_mod.")


def plain_name(name: str) -> str:
    """Return a parameter's name in the bare network."""
    name = name.removeprefix("module.")
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def network_key(student: nn.Module) -> str:
    """Return a hash of the names and shapes of a network's parameters; call it before FSDP takes them apart."""
    return fingerprint({plain_name(name): list(parameter.shape) for name, parameter in student.named_parameters()})
