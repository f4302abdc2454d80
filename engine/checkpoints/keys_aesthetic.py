"""The aesthetic score's published weights: CLIP ViT-L/14's vision tower and the predictor on top of its embedding.

In Hi3D's first stage both stand behind HI3D_PREFIX, as `aesthetic_model.*` and `aesthetic_mlp.*`; on their own they are
OpenAI's `ViT-L-14.pt` and `sac+logos+ava1-l14-linearMSE.pth`.
"""

from collections.abc import Mapping

from torch import Tensor

from engine.checkpoints.converted import Converted, check_keys
from engine.checkpoints.keys_clip import Activation, vision_from_release, vision_to_release
from engine.checkpoints.links import Link, parameters, shape_of, to_ours, to_release, under
from engine.errors import CheckpointError

HI3D_PREFIX = "conditioner.embedders.1."
"""In front of both parts in Hi3D's first stage."""
MODEL, PREDICTOR = "aesthetic_model.", "aesthetic_mlp."
WHAT = "the aesthetic predictor"


def aesthetic_from_release(
    tensors: Mapping[str, Tensor], *, prefix: str = "", head_width: int = 64, activation: Activation = "quick_gelu"
) -> Converted:
    """Return AestheticScorer's config and tensors from Hi3D's names, `aesthetic_model.*` and `aesthetic_mlp.*`.

    Arguments as in keys_clip.vision_from_release. Raises CheckpointError naming missing and unknown tensors.
    """
    own = under(tensors, prefix)
    unknown = [key for key in own if not key.startswith((MODEL, PREDICTOR))]
    check_keys("Hi3D's aesthetic embedder", unknown, ())
    return aesthetic_from_parts(under(own, MODEL), under(own, PREDICTOR), head_width=head_width, activation=activation)


def aesthetic_from_parts(
    clip: Mapping[str, Tensor],
    predictor: Mapping[str, Tensor],
    *,
    head_width: int = 64,
    activation: Activation = "quick_gelu",
) -> Converted:
    """Return AestheticScorer's config and tensors from the two files: CLIP (`visual.*`), predictor (`layers.*`)."""
    vision = vision_from_release(clip, head_width=head_width, activation=activation)
    links = predictor_links(predictor)
    mlp = to_ours(WHAT, links, predictor)
    shapes = [shape_of(WHAT, mlp, f"mlp.{index}.weight", 2) for index in range(len(links) // 2)]
    inputs = [vision.config["projection_dim"], *(shape[0] for shape in shapes)]
    if [shape[1] for shape in shapes] + [1] != inputs:
        raise CheckpointError(
            f"{WHAT}: its layers {shapes} must take CLIP's {inputs[0]} numbers and end in one; it belongs to another CLIP"
        )
    return Converted(
        {"vision": vision.config, "widths": [shape[0] for shape in shapes[:-1]]},
        {f"clip.{key}": tensor for key, tensor in vision.tensors.items()} | mlp,
    )


def aesthetic_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return AestheticScorer's tensors under Hi3D's names."""
    vision = vision_to_release(under(tensors, "clip."), prefix + MODEL)
    mlp = {key: tensor for key, tensor in tensors.items() if not key.startswith("clip.")}
    links = _links(len(mlp) // 2)
    return vision | {prefix + PREDICTOR + key: tensor for key, tensor in to_release(WHAT, links, mlp).items()}


def predictor_links(tensors: Mapping[str, Tensor]) -> list[Link]:
    """Link the predictor's layers in the order of their numbers."""
    layers = len([key for key in tensors if key.startswith("layers.") and key.endswith(".weight")])
    if layers < 2:
        raise CheckpointError(
            f"{WHAT}: has {layers} layers, expected at least 2; is it a checkpoint of another network?"
        )
    return _links(layers)


def _links(layers: int) -> list[Link]:
    """Dropout stands behind every layer but the last two, so the release's numbers are 0, 2, 4, 6, 7."""
    numbers = [*range(0, 2 * (layers - 1), 2), 2 * (layers - 1) - 1]
    return [link for ours, number in enumerate(numbers) for link in parameters(f"layers.{number}", f"mlp.{ours}")]
