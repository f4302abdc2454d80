"""Networks that a task starts from: given weights where they hold a component, else fresh ones of the recipe's size."""

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from engine.checkpoints.layout import WeightsIndex, component_folder, load_component, read_index
from engine.errors import TrainingError
from engine.evaluation.perceptual import Perceptual
from engine.multiview.networks.encoders import ImageEncoder, TextEncoder, seeded
from engine.multiview.networks.image_orbit import ImageOrbitUNet
from engine.multiview.networks.text_orbit import TextOrbitUNet
from engine.multiview.networks.tokenizer import train_tokenizer
from engine.multiview.settings import VideoMVSettings
from engine.training.plans import Recipe
from engine.training.tasks.settings import ImageEncoderSize, TextEncoderSize, VideoMVNetworks

Maker = Callable[[], Any]
Plan = TypeVar("Plan")
Unet = TypeVar("Unet", bound=nn.Module)
UNETS: Mapping[str, type[Any]] = {"text": TextOrbitUNet, "picture": ImageOrbitUNet}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a task starts from."""

    recipe: Recipe
    """What is to be learned."""
    weights: Path | None = None
    """A folder of weights that may hold some of the components."""
    parts: Mapping[str, Path] | None = None
    """Component's name -> another folder of weights that it is taken from instead."""
    cache: Path | None = None
    """Folder for latents that come again; None: in memory."""
    perceptual: Path | None = None
    """File of a backbone for LPIPS, see `engine.evaluation.perceptual`; None leaves that term out."""
    fresh: bool = False
    """Take random numbers even for components that should be pretrained: to measure speed and memory."""
    seed: int = 0
    """Of random weights."""

    def plan(self, kind: type[Plan]) -> Plan:
        """Return what the recipe says of its task. Raises TrainingError if that is of another kind."""
        if not isinstance(self.recipe.task, kind):
            found = type(self.recipe.task).__name__
            raise TrainingError(f"{self.recipe.name}: its task settings must be a {kind.__name__}, found {found}")
        return self.recipe.task

    def lpips(self) -> Perceptual | None:
        """Return the perceptual distance, if its backbone is given."""
        return None if self.perceptual is None else Perceptual.from_files(self.perceptual)

    def folder(self, name: str) -> Path | None:
        """Return the folder of weights that gives a component, if one does."""
        given = (self.parts or {}).get(name)
        if given is not None:
            if name not in read_index(given).components:
                raise TrainingError(f"{given}: holds no {name}; take a folder whose model_index.json names one")
            return given
        if self.weights is not None and name in read_index(self.weights).components:
            return self.weights
        return None

    def settings(self, name: str) -> Mapping[str, Any]:
        """Return what the folder that gives a component says of itself; nothing for fresh ones."""
        folder = self.folder(name)
        return {} if folder is None else read_index(folder).settings

    def component(self, name: str, class_name: str, make: Maker, pretrained: Collection[str] = ()) -> Any:
        """Load a component, or make it; float32.

        Raises:
            TrainingError: it must be pretrained and no folder holds it, or a folder holds one of another class.
            CheckpointError: it does not load.
        """
        folder = self.folder(name)
        if folder is not None:
            self._check_class(folder, name, class_name)
            return load_component(component_folder(folder, read_index(folder), name), class_name, torch.float32)
        if name in pretrained and not self.fresh:
            where = "none were given" if self.weights is None else f"{self.weights} holds none"
            raise TrainingError(
                f"{self.recipe.name} ({self.recipe.size}) starts from a pretrained {name}, but {where}; pass a folder "
                "that `turntable convert` or a run made"
            )
        log.info("%s (%s): %s starts from random numbers", self.recipe.name, self.recipe.size, name)
        with seeded(self.seed):
            return make()

    def _check_class(self, folder: Path, name: str, class_name: str) -> None:
        found = read_index(folder).components[name]
        if found != class_name:
            raise TrainingError(
                f"{folder}: its {name} is a {found}, {self.recipe.name} wants a {class_name}; pass other weights, or "
                "take the recipe that fits them"
            )


def index_of(system: str, components: Mapping[str, Any], settings: Mapping[str, Any]) -> WeightsIndex:
    """Return what is written beside weights."""
    return WeightsIndex(system, {name: type(part).__name__ for name, part in components.items()}, settings)


def keep_expectation(unet: Unet) -> Unet:
    """Leave what a network expects as a recipe `expectation-...` has taught it, if it expects something; return it."""
    expectation = getattr(unet, "expectation", None)
    if expectation is not None:
        expectation.requires_grad_(False)
    return unet


def videomv_components(
    start: Start,
    settings: VideoMVSettings,
    networks: VideoMVNetworks,
    pretrained: Collection[str],
    names: Collection[str] | None = None,
) -> dict[str, Any]:
    """Load or make VideoMV's networks but for the reconstructor, in the order in which they run; names: these alone."""
    unet = UNETS[settings.kind]
    makers: dict[str, tuple[str, Maker]] = {
        "text_encoder": ("TextEncoder", lambda: fresh_text_encoder(networks.text_encoder, start.seed)),
        "image_encoder": ("ImageEncoder", lambda: fresh_image_encoder(networks.image_encoder, start.seed)),
        "unet": (unet.__name__, lambda: unet(**networks.unet)),
        "vae": ("AutoencoderKL", lambda: AutoencoderKL(**networks.vae)),
    }
    if settings.kind == "text":
        del makers["image_encoder"]
    return {
        name: start.component(name, class_name, make, pretrained)
        for name, (class_name, make) in makers.items()
        if names is None or name in names
    }


def fresh_text_encoder(size: TextEncoderSize, seed: int) -> TextEncoder:
    """Return a text encoder with random weights and a tokenizer learned from the recipe's texts."""
    tokenizer = train_tokenizer(size.corpus, size.merges)
    return TextEncoder.fresh(tokenizer, width=size.width, layers=size.layers, head_width=size.head_width, seed=seed)


def fresh_image_encoder(size: ImageEncoderSize, seed: int) -> ImageEncoder:
    """Return an image encoder with random weights."""
    return ImageEncoder.fresh(
        "videomv", embedding=size.embedding, width=size.width, layers=size.layers, head_width=size.head_width,
        size_px=size.size_px, patch_px=size.patch_px, seed=seed,
    )  # fmt: skip
