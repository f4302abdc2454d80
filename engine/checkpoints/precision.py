"""In which type each of a component's numbers is stored."""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from engine.checkpoints.assemble import Component
from engine.checkpoints.layout import component_class
from engine.errors import CheckpointError

Precision = Literal["keep", "fp16", "bf16", "fp32"]
DTYPES: Mapping[str, torch.dtype | None] = {
    "keep": None, "fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32,
}  # fmt: skip


def stored_types(part: Component, precision: Precision) -> dict[str, torch.dtype]:
    """Return what each tensor becomes: floating ones the precision's type, but for layers that their class keeps wide."""
    kept = getattr(component_class(part.class_name), "_keep_in_fp32_modules", None) or ()
    wanted = DTYPES[precision]
    return {
        name: wanted if wanted and tensor.is_floating_point() and name.split(".")[0] not in kept else tensor.dtype
        for name, tensor in part.converted.tensors.items()
    }


def size_bytes(part: Component, precision: Precision) -> int:
    """Return how much a component takes when it is stored."""
    types = stored_types(part, precision)
    return sum(tensor.numel() * types[name].itemsize for name, tensor in part.converted.tensors.items())


def cast(part: Component, precision: Precision) -> dict[str, Tensor]:
    """Return a component's tensors as they are stored."""
    types = stored_types(part, precision)
    return {name: tensor.to(types[name]) for name, tensor in part.converted.tensors.items()}


def check_range(part: Component, precision: Precision) -> None:
    """Raise CheckpointError, naming it, if a number is too large for fp16 and would become infinite."""
    for name, becomes in stored_types(part, precision).items():
        tensor = part.converted.tensors[name]
        if becomes != torch.float16 or tensor.dtype == torch.float16 or not tensor.numel():
            continue
        largest = max(abs(float(end)) for end in tensor.aminmax())
        if math.isfinite(largest) and torch.tensor(largest).to(becomes).isinf():
            raise CheckpointError(
                f"{part.pieces[0].file.name}: {name} of the {part.name} holds {largest:.6g}, more than fp16 can "
                f"({torch.finfo(becomes).max:.6g}), and would become infinite; take precision bf16 or keep"
            )
