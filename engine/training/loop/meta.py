"""One training step of a task on the meta device: what it holds and what it computes, without a device or a number.

Attention is counted as a fused kernel, which never stores its scores; in 16 bits, operations run in what autocast gives
them on CUDA. An estimate: an allocator's rounding, workspaces and kernels of our own (splats) come on top.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch.nn import functional

from engine.geometry import RING24, RINGS, Orbit
from engine.multiview.footprint import Living
from engine.training.loop.speed import count_forward
from engine.training.plans import DataPlan
from engine.training.types import Batch, Position, Task

ELEVATION_DEG = 15.0
IN_16_BITS = (
    (functional, "linear"), (functional, "conv1d"), (functional, "conv2d"), (functional, "conv3d"),
    (functional, "conv_transpose2d"), (torch, "matmul"), (torch, "bmm"), (torch, "baddbmm"), (torch, "addmm"),
    (Tensor, "matmul"), (Tensor, "__matmul__"),
)  # fmt: skip
IN_32_BITS = (
    (functional, "layer_norm"), (functional, "group_norm"), (functional, "softmax"), (torch, "softmax"),
    (Tensor, "softmax"), (functional, "mse_loss"), (functional, "l1_loss"), (functional, "smooth_l1_loss"),
)  # fmt: skip
"""What CUDA's autocast does, https://docs.pytorch.org/docs/stable/amp.html, as far as networks here use it."""


@dataclass(frozen=True)
class StepCost:
    """What a micro-batch holds and computes."""

    activation_bytes: int
    """Most bytes that lived besides weights and their gradients."""
    forward_flop: int
    """Of the student."""


def imagined_batch(plan: DataPlan, clips: int, device: torch.device | str) -> Batch:
    """Return a batch of a plan's shape: cameras are real, pictures are grey."""
    side, views = plan.size_px, plan.views
    orbit = _orbit(plan)
    grey = torch.zeros(clips, views, 3, side, side, device=device)
    return Batch(
        pixels=grey, alpha=torch.ones(clips, views, 1, side, side, device=device), orbits=(orbit,) * clips,
        backgrounds=torch.ones(clips, 3, device=device), captions=("an object",) * clips, uids=("imagined",) * clips,
        seeds=tuple(range(clips)), positions=tuple(Position(0, 0, i) for i in range(clips)),
        depth_m=torch.ones(clips, views, side, side, device=device) if plan.depth else None,
        degraded=grey.clone(), starts=(0,) * clips,  # whether the plan or a first stage makes them
    )  # fmt: skip


def _orbit(plan: DataPlan) -> Orbit:
    ring = replace(RINGS.get(plan.orbit, RING24), views=max(plan.views, 1))
    return ring.orbit(ELEVATION_DEG, plan.size_px, plan.size_px)


def cost_of_step(task: Task, plan: DataPlan, clips: int, precision: str) -> StepCost:
    """Run a forward and a backward pass of a task, all of whose networks are on one device, and count.

    Raises whatever the task raises where its networks are on meta and it wants numbers.
    """
    device = next(task.student.parameters()).device
    batch = imagined_batch(plan, clips, device)
    with _on_meta(device.type == "meta", precision != "no"):
        flop = count_forward(task.student, lambda student: task.loss(student, batch, share=1.0))
        with _attention(device.type == "meta"), Living() as living:
            losses = task.loss(task.student, batch, share=1.0)
            held = living.now
            losses.total.backward()
    gradients = sum(p.grad.numel() * p.grad.element_size() for p in task.student.parameters() if p.grad is not None)
    task.student.zero_grad(set_to_none=True)
    return StepCost(max(held, living.peak - gradients), flop)


@contextmanager
def _replaced(places: Iterable[tuple[Any, str, Callable[..., Any]]]) -> Iterator[None]:
    """Put other functions in torch's places for a while.

    torch's function modes would do as well, were they not off while a backward pass computes activations again.
    """
    before = []
    try:
        for owner, name, function in places:
            before.append((owner, name, getattr(owner, name)))
            setattr(owner, name, function)
        yield
    finally:
        for owner, name, function in reversed(before):
            setattr(owner, name, function)


@contextmanager
def _on_meta(meta: bool, sixteen: bool) -> Iterator[None]:
    """CUDA's autocast on the meta device, which has none of its own; tasks may switch it off as they do on CUDA."""
    on = [sixteen]
    real = torch.autocast

    @contextmanager
    def autocast(device_type: str, dtype: Any = None, enabled: bool = True, **keywords: Any) -> Iterator[None]:
        if device_type != "meta":
            with real(device_type, dtype, enabled, **keywords):
                yield
            return
        before, on[0] = on[0], on[0] and enabled
        try:
            yield
        finally:
            on[0] = before

    def cast(function: Callable[..., Any], kind: torch.dtype) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if on[0]:
                arguments = tuple(_cast(one, kind) for one in arguments)
                keywords = {name: _cast(one, kind) for name, one in keywords.items()}
            return function(*arguments, **keywords)

        return call

    kinds = ((IN_16_BITS, torch.bfloat16), (IN_32_BITS, torch.float32))
    casts = [(owner, name, cast(getattr(owner, name), kind)) for places, kind in kinds for owner, name in places]
    with _replaced([(torch, "autocast", autocast), *casts] if meta else []):
        yield


def _cast(value: Any, kind: torch.dtype) -> Any:
    return value.to(kind) if isinstance(value, Tensor) and value.is_floating_point() else value


@contextmanager
def _attention(meta: bool) -> Iterator[None]:
    """Attention that stores queries, keys, values and its answer; on the meta device torch would store the scores."""

    def fused(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
        kind = query.dtype if key.dtype == query.dtype else torch.bfloat16
        return _Attention.apply(query.to(kind), key.to(kind), value.to(kind))  # type: ignore[no-untyped-call]

    with _replaced([(functional, "scaled_dot_product_attention", fused)] if meta else []):
        yield


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        answer = query.new_empty(*query.shape[:-1], value.shape[-1])
        context.save_for_backward(query, key, value, answer)
        return answer

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _ = context.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def on_meta(make: Callable[[], Task]) -> Task:
    """Make a task whose networks are on the meta device from the start: none of its weights is ever in memory."""
    with init_empty_weights():
        task = make()
    networks: list[nn.Module] = [task.student, *task.frozen.values()]
    for network in networks:
        network.to("meta")
    return task
