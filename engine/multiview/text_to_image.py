"""A sentence becomes a picture, which then becomes an orbit (Hi3D section 5.5): any diffusers pipeline in front."""

import logging
from pathlib import Path

import numpy as np
import torch

from engine.errors import CheckpointError, MissingDependencyError
from engine.multiview.pictures import Picture

PROMPT_SUFFIX = ", a single object, centred, whole object in view, plain white background, 3d asset"
"""What makes text-to-image models paint something that an orbit can be made of."""
NEGATIVE_PROMPT = "cropped, cut off, several objects, busy background, text, watermark, shadow on the ground"

log = logging.getLogger(__name__)


def paint(prompt: str, path_or_hub_id: str, seed: int, device: str = "cpu") -> Picture:
    """Paint one picture of an object.

    Args:
        prompt: a sentence; PROMPT_SUFFIX is appended.
        path_or_hub_id: folder or hub id of a diffusers text-to-image pipeline.
        seed: of the noise, drawn on the CPU: the same seed gives the same noise on any device.
        device: where it runs; in bfloat16 on CUDA.

    Raises CheckpointError if it does not load or is no text-to-image pipeline; MissingDependencyError without
    diffusers.
    """
    try:
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"--text-to-image needs {error.name}: pip install 'turntable3d[models]'"
        ) from error
    dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(path_or_hub_id, torch_dtype=dtype)
    except (OSError, ValueError, RuntimeError) as error:  # what diffusers and the hub's client raise
        kind = "folder" if Path(path_or_hub_id).exists() else "hub id"
        raise CheckpointError(
            f"--text-to-image {path_or_hub_id}: this {kind} does not load as a diffusers text-to-image pipeline "
            f"({str(error).splitlines()[0][:300]})"
        ) from error
    pipeline.to(device)
    pipeline.set_progress_bar_config(disable=True)
    log.info("painting the picture with %s", path_or_hub_id)
    generator = torch.Generator("cpu").manual_seed(seed)
    asked = {"prompt": prompt + PROMPT_SUFFIX, "generator": generator}
    if "negative_prompt" in pipeline.__call__.__code__.co_varnames:  # models distilled from guidance take none
        asked["negative_prompt"] = NEGATIVE_PROMPT
    painted = pipeline(**asked).images[0].convert("RGBA")
    return Picture(np.asarray(painted), f'the picture painted of "{prompt}"')
