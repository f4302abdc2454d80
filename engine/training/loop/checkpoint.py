"""Checkpoints of a run in progress: accelerate's state (network, optimiser, scaler), the moving average, the progress.

What a state holds is accelerate's affair, so that DDP, FSDP and DeepSpeed all work; that it is whole is ours (see state).
"""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import nn

from engine.errors import TrainingError
from engine.training.loop import state
from engine.training.loop.lora import trained_only
from engine.training.loop.processes import is_sharded
from engine.training.loop.state import Progress
from engine.training.loop.steps import Setup

log = logging.getLogger(__name__)


def identity_of(setup: Setup) -> dict[str, Any]:
    """Return what a checkpoint must share with the run that takes it up (see state.BINDING)."""
    recipe = setup.recipe
    return {
        "recipe": recipe.name, "size": recipe.size, "data": asdict(recipe.data), "seed": setup.settings.seed,
        "lora_rank": setup.settings.lora_rank, "ema": setup.average is not None,
        "scaled": setup.accelerator.scaler is not None, "parameters": setup.network,
    }  # fmt: skip


def save_checkpoint(setup: Setup, run: Path, progress: Progress, identity: Mapping[str, Any]) -> Path:
    """Write the checkpoint of a step; all processes call it. Older ones than are kept go when it is whole."""
    accelerator, target = setup.accelerator, state.checkpoint_path(run, progress.step)
    partial = state.partial_of(target)
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if setup.average is not None and (is_sharded(accelerator) or accelerator.is_main_process):
        setup.average.save(partial / _average_file(setup))
    everyone = gather_object([progress.learned])
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        learned = {reader: position for one in everyone for reader, position in one.items()}
        state.write_progress(partial, progress, learned, identity, accelerator.num_processes)
        state.sync_tree(partial)
        state.replace_folder(partial, target)
        state.forget_old(run, setup.settings.keep)
    accelerator.wait_for_everyone()
    return target


def _average_file(setup: Setup) -> str:
    """One file for all processes, or one for each where the weights are spread over them."""
    return f"ema-{setup.accelerator.process_index if is_sharded(setup.accelerator) else 0:05d}.safetensors"


def load_checkpoint(setup: Setup, checkpoint: Path, identity: Mapping[str, Any]) -> Progress:
    """Take up a checkpoint; all processes call it.

    Raises TrainingError if it is of another run, or of another number of processes where each holds a part.
    """
    accelerator = setup.accelerator
    progress, ranks = state.read_progress(checkpoint, identity)
    if ranks != accelerator.num_processes:
        if is_sharded(accelerator):
            raise TrainingError(
                f"{checkpoint}: was written by {ranks} processes that each held a part, now there are "
                f"{accelerator.num_processes}; resume with {ranks}"
            )
        log.warning("%s: was written by %d processes, now there are %d: the order of the data changes", checkpoint, ranks,
                    accelerator.num_processes)  # fmt: skip
    accelerator.load_state(str(checkpoint), **({"strict": False} if _adapters_alone(setup) else {}))
    accelerator.step = 0  # of the accumulation, which may be another one now; checkpoints stand between steps
    if setup.average is not None:
        setup.average.load(checkpoint / _average_file(setup))
    log.info("going on after step %d of %s", progress.step, checkpoint)
    return progress


def _adapters_alone(setup: Setup) -> bool:
    return setup.settings.lora_rank is not None and not is_sharded(setup.accelerator)


def keep_adapters_alone(setup: Setup) -> None:
    """Leave the frozen weights out of the checkpoints of a run that trains adapters: they come with --weights."""
    if not _adapters_alone(setup):
        return

    def drop_frozen(models: list[nn.Module], weights: list[dict[str, Any]], folder: str) -> None:
        for model, tensors in zip(models, weights, strict=True):
            kept = trained_only(tensors, model)
            for name in set(tensors) - set(kept):
                del tensors[name]

    setup.accelerator.register_save_state_pre_hook(drop_frozen)
