"""Tensors that come again and are costly to make: from memory, from the disk, or made.

    key --memory?--> --a file under FOLDER/NAME?--> make() --> float16, kept in both

Several processes, and later runs, may share the folder.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from engine.files import write_bytes

MEMORY_BYTES = 2**30
"""Of entries kept in memory; the least recently used go first."""
HALF_LARGEST = torch.finfo(torch.float16).max

log = logging.getLogger(__name__)


class KeptTensors:
    """Half-precision tensors by key."""

    def __init__(
        self, folder: Path | None, name: Callable[[], str], what: str, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        """Keep tensors.

        Args:
            folder: where they are kept for this run and others; None keeps them in memory alone.
            name: of the subfolder: tells all that the tensors hang on besides their keys; asked when first needed.
            what: their name in a file, and in warnings.
            memory_bytes: of tensors in memory.
        """
        self.folder, self.name, self.memory_bytes, self.what = folder, name, memory_bytes, what
        self.made = 0
        """Tensors that were neither in memory nor on the disk."""
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._kept_bytes = 0

    def get(self, key: str, fits: Callable[[Tensor], bool], make: Callable[[], Tensor]) -> Tensor:
        """Return a tensor, on the CPU, rounded to float16 whether it was found or made.

        Args:
            key: finds it.
            fits: whether one that was found on the disk may be it; else it is made again.
            make: makes it.
        """
        found = self._kept.get(key)
        if found is None:
            found = self._read(key, fits)
        if found is None:
            found = make().float().clamp(-HALF_LARGEST, HALF_LARGEST).half().cpu()
            self.made += 1
            self._write(key, found)
        self._keep(key, found)
        return found

    def path(self, key: str) -> Path | None:
        """Return the file of an entry; None without a folder."""
        if self.folder is None:
            return None
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self.folder / self.name() / digest[:2] / f"{digest}.safetensors"

    def _keep(self, key: str, entry: Tensor) -> None:
        if key not in self._kept:
            self._kept_bytes += entry.nbytes
        self._kept[key] = entry
        self._kept.move_to_end(key)
        while self._kept_bytes > self.memory_bytes and len(self._kept) > 1:
            self._kept_bytes -= self._kept.popitem(last=False)[1].nbytes

    def _read(self, key: str, fits: Callable[[Tensor], bool]) -> Tensor | None:
        path = self.path(key)
        if path is None or not path.is_file():
            return None
        try:
            found = load_file(path)[self.what]
        except (OSError, KeyError, SafetensorError) as error:
            log.warning("%s: cached %s do not read (%s): making them again", path, self.what, error)
            return None
        return found if fits(found) else None

    def _write(self, key: str, entry: Tensor) -> None:
        path = self.path(key)
        if path is not None:  # a power cut loses entries, which are made again: the folder need not be synced
            write_bytes(path, save({self.what: entry.contiguous()}, {"key": key}), sync=False)


def weights_hash(*modules: nn.Module) -> str:
    """Return 16 digits that tell the modules' weights, and their types, from others."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
