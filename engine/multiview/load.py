"""From a preset and a name of weights to a pipeline that is ready to run."""

import logging
from collections.abc import Mapping

import torch

from engine.multiview.hi3d import Hi3DPipeline
from engine.multiview.random_weights import random_hi3d, random_videomv
from engine.multiview.settings import VideoMVSettings
from engine.multiview.videomv import VideoMVPipeline
from engine.multiview.weights import settings_asked, weights_folder
from engine.presets import Preset, Source

Pipeline = VideoMVPipeline | Hi3DPipeline
PIPELINES: Mapping[str, type[VideoMVPipeline] | type[Hi3DPipeline]] = {"videomv": VideoMVPipeline, "hi3d": Hi3DPipeline}

log = logging.getLogger(__name__)


def load_pipeline(preset: Preset, source: Source, weights: str | None, *, dtype: torch.dtype, device: str) -> Pipeline:
    """Load a preset's networks.

    Args:
        preset: see engine.presets.
        source: what it starts from.
        weights: a folder of ours or a hub id; None for presets that have weights of their own.
        dtype: of all networks.
        device: where they go.

    Raises TurntableError, as `weights.settings_asked` and the pipelines' from_pretrained.
    """
    settings = settings_asked(preset, source, weights)
    if preset.weights != "random":
        return PIPELINES[preset.system].from_pretrained(weights_folder(preset, weights), dtype=dtype, device=device)
    log.warning("%s: random weights, the result is noise", preset.name)
    made = random_videomv(settings) if isinstance(settings, VideoMVSettings) else random_hi3d(settings)
    return made.to(device, dtype)
