"""What both pipelines are made of: components that are loaded, saved, moved and offloaded together."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

import torch
from torch import nn

from engine.checkpoints.layout import WeightsIndex, component_folder, load_component, plain, read_index, write_index
from engine.errors import CheckpointError, MissingDependencyError
from engine.multiview.weights import settings_of

P = TypeVar("P", bound="Components")

log = logging.getLogger(__name__)


class Components:
    """A system's networks. Subclasses name them in the order in which they run, which is how they are offloaded."""

    system: ClassVar[str]
    """Name in model_index.json."""
    required: ClassVar[tuple[str, ...]]
    """Components without which it cannot run."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Components that it can run without."""
    order: ClassVar[tuple[str, ...]]
    """All of them as they run."""
    denoisers: ClassVar[tuple[str, ...]] = ("unet",)
    """Those that run at every step."""

    def __init__(self, settings: Any, components: Mapping[str, Any]) -> None:
        """Hold the components. Raises CheckpointError, naming them, if required ones are missing or some are unknown."""
        missing = [name for name in self.required if components.get(name) is None]
        unknown = sorted(set(components) - {*self.required, *self.optional})
        if unknown:
            raise CheckpointError(f"the weights hold {', '.join(unknown)}, which {self.system} does not know")
        if missing:
            self._lacks(", ".join(missing), f"{self.system} is made of {', '.join(self.required)}")
        self.settings = settings
        self.components = {name: components[name] for name in self.order if components.get(name) is not None}
        self._hooks: list[Any] = []
        self._offload_device: torch.device | None = None

    def _lacks(self, what: str, why: str) -> NoReturn:
        raise CheckpointError(f"the weights lack {what}: {why}; add what is missing with `turntable convert`")

    @classmethod
    def from_pretrained(
        cls: type[P], path_or_hub_id: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
    ) -> P:
        """Load a folder of ours, or download one.

        Args:
            path_or_hub_id: a folder that `turntable convert` or save_pretrained wrote, or a hub id of such a folder.
            dtype: of all networks.
            device: where they go.

        Raises:
            CheckpointError: no such folder or id, another system's weights, missing or broken files.
        """
        from engine.checkpoints.hub import fetch

        folder = fetch(path_or_hub_id)
        index = read_index(folder)
        if index.system != cls.system:
            raise CheckpointError(f"{folder}: holds weights of {index.system}, expected {cls.system}")
        components = {
            name: load_component(component_folder(folder, index, name), class_name, dtype)
            for name, class_name in index.components.items()
        }
        return cls(settings_of(index, folder), components).to(device)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write all components and the index; from_pretrained reads them back."""
        place = Path(folder)
        for name, component in self.components.items():
            component.save_pretrained(place / name)
        names = {name: type(component).__name__ for name, component in self.components.items()}
        write_index(place, WeightsIndex(self.system, names, plain(self.settings)))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The components that are torch modules, in the order in which they run."""
        return {name: part for name, part in self.components.items() if isinstance(part, nn.Module)}

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        if self._offload_device is not None:
            return self._offload_device
        return next(next(iter(self.modules.values())).parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return _dtype(next(iter(self.modules.values())))

    def to(self: P, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> P:
        """Move all components; raises MissingDependencyError for a CUDA device where there is none."""
        if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise MissingDependencyError(f"device {device}: torch sees no CUDA device here; take cpu")
        self.remove_offload()
        for module in self.modules.values():
            if dtype is not None:
                _cast(module, dtype)
            if device is not None:
                module.to(device)
        return self

    def compile(self, backend: str = "inductor") -> None:
        """Compile the denoisers at their next call (a minute or more, once a size); not together with offloading."""
        if self._hooks:
            raise ValueError("compile and offload exclude each other: offloading moves what was compiled")
        for name in self.denoisers:
            if name in self.modules:
                self.modules[name].compile(backend=backend, fullgraph=True)

    def enable_model_cpu_offload(self, device: torch.device | str = "cuda") -> None:
        """Keep the networks in main memory and bring each to the device when it runs, the one before it back."""
        from accelerate import cpu_offload_with_hook

        self.to("cpu")
        previous = None
        for module in self.modules.values():
            _, previous = cpu_offload_with_hook(module, device, prev_module_hook=previous)
            self._hooks.append(previous)
        self._offload_device = torch.device(device)

    def remove_offload(self) -> None:
        """Undo enable_model_cpu_offload."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._offload_device = [], None


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a component, but for what its class keeps in float32 (as from_pretrained does)."""
    kept = getattr(module, "_keep_in_fp32_modules", None) or ()
    for name, part in module.named_children():
        if name not in kept:
            part.to(dtype)
    for parameter in module.parameters(recurse=False):
        parameter.data = parameter.data.to(dtype)
