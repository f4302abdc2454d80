"""How one machine works on a run: slots, retries, limits."""

from dataclasses import dataclass, field

from render_farm.spec import Execution


@dataclass(frozen=True)
class FarmSettings:
    """How one machine works on a run. Nothing here changes a picture."""

    slots: int = 1
    """Blenders at a time: one for each GPU, or one for each share of the cores."""
    execution: Execution = field(default_factory=Execution)
    """Threads, device, deadlines and limits of each."""
    recycle_objects: int = 75
    """A Blender that has done so many is replaced by a fresh one."""
    recycle_bytes: int = 0
    """A Blender that holds more memory than this after an object is replaced; 0: none is."""
    retries: int = 2
    """Further attempts after failures that may pass: crash, timeout, memory, disk, output."""
    finishers: int = 1
    """Processes that convert, check and stage."""
    gpus: tuple[str, ...] = ()
    """Numbers or UUIDs of GPUs, dealt out to the slots in turn: each Blender sees one. Empty: all see what we see."""
    min_free_bytes: int = 2 * 2**30
    """With less room than this where files are written, nothing new is started until there is more."""

    def __post_init__(self) -> None:
        for name, least in (("slots", 1), ("recycle_objects", 1), ("finishers", 1), ("recycle_bytes", 0), ("retries", 0),
                            ("min_free_bytes", 0)):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def command(self, slot: int, worker: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command of a slot's Blender: the worker, seeing its own GPU where some are named."""
        if not self.gpus:
            return worker
        gpu = self.gpus[slot % len(self.gpus)]
        return ("/usr/bin/env", f"CUDA_VISIBLE_DEVICES={gpu}", f"HIP_VISIBLE_DEVICES={gpu}", *worker)
