"""The aesthetic score's published weights: CLIP ViT-L/14's vision tower and the predictor on top of its embedding.

In Hi3D's first stage both stand together, as `aesthetic_model.*` and `aesthetic_mlp.*`; on their own they are
OpenAI's `ViT-L-14.pt` and `sac+logos+ava1-l14-linearMSE.pth`.
"""

from collections.abc import Mapping

from torch import Tensor

from engine.checkpoints.converted import Converted, check_keys
from engine.checkpoints.keys_clip import Activation, vision_from_release, vision_to_release
from engine.checkpoints.prefixes import AESTHETIC_CLIP, AESTHETIC_MLP, HI3D_AESTHETIC
from engine.checkpoints.renaming import Renaming, behind, count_children, own_part, without
from engine.errors import CheckpointError

WHAT = "the aesthetic predictor"


def aesthetic_from_release(
    tensors: Mapping[str, Tensor],
    *,
    prefix: str = HI3D_AESTHETIC,
    head_dim: int = 64,
    activation: Activation = "quick_gelu",
) -> Converted:
    """Return AestheticScorer's config and tensors from Hi3D's names, `aesthetic_model.*` and `aesthetic_mlp.*`.

    Arguments as in keys_clip.vision_from_release. Raises CheckpointError naming missing and unknown tensors.
    """
    own = own_part(tensors, prefix)
    check_keys("Hi3D's aesthetic embedder", without(own, (AESTHETIC_CLIP, AESTHETIC_MLP)), ())
    return aesthetic_from_parts(
        behind(own, AESTHETIC_CLIP), behind(own, AESTHETIC_MLP), head_dim=head_dim, activation=activation
    )


def aesthetic_from_parts(
    clip: Mapping[str, Tensor],
    predictor: Mapping[str, Tensor],
    *,
    head_dim: int = 64,
    activation: Activation = "quick_gelu",
) -> Converted:
    """Return AestheticScorer's config and tensors from the two files: CLIP (`visual.*`), predictor (`layers.*`)."""
    vision = vision_from_release(clip, head_dim=head_dim, activation=activation)
    layers = count_children(predictor, "layers")
    if layers < 2:
        raise CheckpointError(
            f"{WHAT}: has {layers} layers, expected at least 2; is it a checkpoint of another network?"
        )
    renaming = _renaming(layers)
    widths = [renaming.shape(predictor, f"mlp.{index}.weight", 2)[0] for index in range(layers - 1)]
    shapes = {
        f"mlp.{index}.{kind}": (given, taken) if kind == "weight" else (given,)
        for index, (taken, given) in enumerate(
            zip((vision.config["projection_dim"], *widths), (*widths, 1), strict=True)
        )
        for kind in ("weight", "bias")
    }
    return Converted(
        {"vision": vision.config, "widths": widths},
        {f"clip.{key}": tensor for key, tensor in vision.tensors.items()} | renaming.from_release(predictor, shapes),
    )


def aesthetic_to_release(tensors: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Return AestheticScorer's tensors under Hi3D's names."""
    vision = vision_to_release(behind(tensors, "clip."), prefix + AESTHETIC_CLIP)
    mlp = without(tensors, "clip.")
    return vision | _renaming(count_children(mlp, "mlp")).to_release(mlp, prefix + AESTHETIC_MLP)


def _renaming(layers: int) -> Renaming:
    """Names in the order of work; dropout stands behind every layer but the last two, so that these are 0, 2, 4, 6, 7."""
    numbers = [*range(0, 2 * (layers - 1), 2), 2 * (layers - 1) - 1]
    return Renaming(WHAT, {f"mlp.{ours}": f"layers.{number}" for ours, number in enumerate(numbers)})
