"""Ways of sampling that one evaluation can compare, object by object and from the same noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from engine.checkpoints.layout import read_index
from engine.errors import EvaluationError
from engine.multiview.settings import RefinementChoice, Sampling
from engine.multiview.weights import weights_folder
from engine.presets import Preset, System

AS_ASKED = "generated"
"""Name of the only variant where nothing is compared: sampled as the flags say."""


@dataclass(frozen=True)
class Variant:
    """One way of sampling."""

    name: str
    """As it is typed after --compare."""
    summary: str
    """One line for errors."""
    system: System
    """Which system has it."""
    refinement: RefinementChoice = "both"
    """VideoMV's 3D-aware sampling."""
    second_stage: bool = True
    """Hi3D's refiner."""
    needs: str | None = None
    """Component without which it is another variant under a wrong name."""

    def sampling(self, asked: Sampling) -> Sampling:
        """Return what the user asked for, in this way."""
        return replace(asked, refinement=self.refinement, second_stage=self.second_stage)


VARIANTS: Mapping[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("plain", "without 3D-aware sampling", "videomv", refinement="off"),
        Variant("3d-aware", "3D-aware sampling of both branches", "videomv", needs="reconstructor"),
        Variant("3d-aware-conditional", "3D-aware sampling of the conditional branch", "videomv",
                refinement="conditional", needs="reconstructor"),
        Variant("unrefined", "the first stage alone", "hi3d", second_stage=False),
        Variant("refined", "both stages", "hi3d", needs="refiner"),
    )
}  # fmt: skip
"""By name."""


def variants_named(names: Sequence[str], preset: Preset, weights: str | None) -> list[Variant]:
    """Return the variants to compare; none asked for: none.

    Raises EvaluationError for an unknown one, one of the other system, one that the weights cannot do, or a single one.
    """
    fitting = [
        f"{variant.name} ({variant.summary})" for variant in VARIANTS.values() if variant.system == preset.system
    ]
    for name in names:
        if name not in VARIANTS or VARIANTS[name].system != preset.system:
            raise EvaluationError(f"--compare {name}: --preset {preset.name} has {', '.join(fitting)}")
    if len(set(names)) != len(names):
        raise EvaluationError(f"--compare {' '.join(names)}: names one twice; leave it out")
    chosen = [VARIANTS[name] for name in names]
    if preset.weights != "random" and chosen:
        components = read_index(weights_folder(preset, weights)).components
        for variant in chosen:
            if variant.needs is not None and variant.needs not in components:
                raise EvaluationError(
                    f"--compare {variant.name}: these weights hold no {variant.needs}; they have "
                    f"{', '.join(sorted(components))}: leave it out, or add the {variant.needs} to them"
                )
    return chosen
