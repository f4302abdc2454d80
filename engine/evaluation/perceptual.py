"""LPIPS (Zhang et al. 2018): how far apart two pictures look, by the features of a network that knows ImageNet.

    pictures in [-1, 1] --normalised--> backbone's features at a few depths --unit length a pixel--> squared difference
                                                                  --heads: a weight a channel--> mean, summed over depths

Backbones are torchvision's files (vgg16-397923af.pth, alexnet-owt-7be5be79.pth, squeezenet1_1-b8a52dc0.pth), read here
without torchvision, whose wheels replace a CPU build of torch. The heads of version 0.1 come in the wheels of
torchmetrics and of lpips.
"""

import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from engine.errors import CheckpointError, MissingDependencyError

Backbone = Literal["vgg", "alex", "squeeze"]
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for pictures in [-1, 1], as LPIPS has them."""
SMALLEST = 1e-8
"""Added to a feature's squared length (torchmetrics' choice), so that gradients are finite where all features are 0."""
HEADS_IN_WHEELS = (("torchmetrics", "functional/image/lpips_models"), ("lpips", "weights/v0.1"))
"""Package -> folder of its wheel that holds vgg.pth, alex.pth and squeeze.pth."""


@dataclass(frozen=True)
class Layout:
    """One backbone: torchvision's `features`, and behind which of its layers LPIPS looks."""

    layers: Sequence[nn.Module]
    """torchvision's, in its order, so that its state dicts fit."""
    ends: tuple[int, ...]
    """Number of layers before each look."""
    widths: tuple[int, ...]
    """Channels seen there."""


class Fire(nn.Module):
    """SqueezeNet's block (Iandola et al. 2016)."""

    def __init__(self, given: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(given, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Run it."""
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)


def _vgg() -> Layout:
    layers: list[nn.Module] = []
    given = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        layers += [nn.Conv2d(given, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        given = width or given
    return Layout(layers, (4, 9, 16, 23, 30), (64, 128, 256, 512, 512))


def _alex() -> Layout:
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    ]  # fmt: skip
    return Layout(layers, (2, 5, 8, 10, 12), (64, 192, 384, 256, 256))


def _squeeze() -> Layout:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = [
        nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    return Layout(layers, (2, 5, 8, 10, 11, 12, 13), (64, 128, 256, 384, 384, 512, 512))


LAYOUTS = {"vgg": _vgg, "alex": _alex, "squeeze": _squeeze}
TELLING: Mapping[str, Backbone] = {
    "features.28.weight": "vgg",
    "features.12.squeeze.weight": "squeeze",
    "features.10.weight": "alex",
}
"""A key that only this backbone has among those not yet asked for; in this order."""


class Perceptual(nn.Module):
    """LPIPS. Frozen and in evaluation mode; differentiable in the pictures."""

    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone) -> None:
        """Build it with random weights, the heads not negative: for tests. `from_files` reads real ones."""
        super().__init__()
        layout = LAYOUTS[backbone]()
        self.backbone, self.ends = backbone, layout.ends
        self.features = nn.Sequential(*layout.layers)
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1, bias=False) for width in layout.widths)
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)
        with torch.no_grad():
            for head in self.heads.parameters():
                head.abs_()
        self.eval().requires_grad_(False)

    @classmethod
    def from_files(cls, backbone: Path, heads: Path | None = None) -> "Perceptual":
        """Read torchvision's backbone, which its keys tell, and the heads that belong to it.

        Args:
            backbone: vgg16-397923af.pth, alexnet-owt-7be5be79.pth or squeezenet1_1-b8a52dc0.pth.
            heads: vgg.pth, alex.pth or squeeze.pth of LPIPS 0.1; None looks into the installed torchmetrics or lpips.

        Raises:
            CheckpointError: a file that does not read or holds something else.
            MissingDependencyError: neither heads nor a package that brings them.
        """
        tensors = _read(backbone)
        kind = next((kind for key, kind in TELLING.items() if key in tensors), None)
        if kind is None:
            raise CheckpointError(
                f"{backbone}: expected torchvision's vgg16, alexnet or squeezenet1_1, found other keys "
                f"({', '.join(sorted(tensors)[:2])}); download one of them from download.pytorch.org/models"
            )
        network = cls(kind)
        place = heads or heads_of(kind)
        weights = _read(place)
        _fill(backbone, network.features, _without(tensors, "features."))
        _fill(place, network.heads, {k.removeprefix("lin").replace("model.1.", ""): v for k, v in weights.items()})
        return network

    def forward(self, made: Float[Tensor, "b 3 h w"], truth: Float[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
        """Return the distance of each pair of pictures in [-1, 1]; 0 for equal ones. At least 35 px a side."""
        pairs = zip(self._looks(made), self._looks(truth), self.heads, strict=True)
        distances = [head((ours - theirs) ** 2).mean((1, 2, 3)) for ours, theirs, head in pairs]
        return torch.stack(distances).sum(0)

    def _looks(self, pictures: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        x = (pictures.float() - self.shift) / self.scale
        seen = []
        for start, end in zip((0, *self.ends), self.ends, strict=False):
            x = self.features[start:end](x)
            seen.append(x / (SMALLEST + x.square().sum(1, keepdim=True)).sqrt())
        return seen


def heads_of(backbone: Backbone) -> Path:
    """Return the heads' file in an installed wheel; nothing of it is imported. Raises MissingDependencyError."""
    for package, folder in HEADS_IN_WHEELS:
        found = importlib.util.find_spec(package)
        for place in (found.submodule_search_locations or []) if found else []:
            path = Path(place) / folder / f"{backbone}.pth"
            if path.is_file():
                return path
    raise MissingDependencyError(
        f"LPIPS needs its heads ({backbone}.pth), which come with torchmetrics: pip install torchmetrics, or name the file"
    )


def _read(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path}: does not read as tensors ({reason}); download it again") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected names and tensors, found something else; download it again")
    return content


def _without(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _fill(path: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise CheckpointError(f"{path}: {' '.join(str(error).split())[:200]}; is it another network's?") from error
