"""Where a pixel's Gaussian starts before the network moves it: on its own ray, of its own colour.

LGM's positions are free in the unit cube (its section 3.2); here they stay near the pixel's ray, as in Splatter Image
(Szymanowicz et al. 2024, section 3.2). The heads after this are LGM's.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

REACH_M = 0.87
"""Along the ray, from its point nearest to the origin: half the unit cube's diagonal."""
ASIDE_M = 0.03
"""Across the ray, for a raw number of 1."""
SMALL = -1.5
"""Added to raw scales: about 2 cm, a pixel of 64, instead of 7."""
DEEPEST_COLOUR = 0.98
"""Of the range -1 to 1, so that its inverse tanh is finite."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Of ImageNet's pictures, per channel, in [0, 1]: LGM normalises with it."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Their standard deviation."""


def anchored_numbers(raw: Float[Tensor, "bv 14 p q"], inputs: Float[Tensor, "bv 9 h w"]) -> Float[Tensor, "bv 14 p q"]:
    """Return raw numbers that stand for a Gaussian on its pixel's ray and of its pixel's colour, moved by `raw`.

    Args:
        raw: the network's own: position (along the ray, across it twice), opacity, scale, quaternion, colour.
        inputs: what the network was given: ImageNet-normalised RGB, then moment o x d and direction d of the rays.
    """
    seen = functional.adaptive_avg_pool2d(inputs.float(), (raw.shape[-2], raw.shape[-1]))
    rgb, moment, direction = seen.split(3, dim=1)
    direction = functional.normalize(direction, dim=1)
    nearest = torch.linalg.cross(direction, moment, dim=1)  # of the ray's points to the origin
    right = functional.normalize(torch.linalg.cross(direction, _up(direction), dim=1), dim=1)
    above = torch.linalg.cross(right, direction, dim=1)
    along, across, upwards = raw[:, :3].float().split(1, dim=1)
    place = nearest + REACH_M * along.tanh() * direction + ASIDE_M * (across * right + upwards * above)
    mean, std = (rgb.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    colour = (2 * (rgb * std + mean) - 1).clamp(-DEEPEST_COLOUR, DEEPEST_COLOUR).atanh()
    numbers = [place, raw[:, 3:4], raw[:, 4:7] + SMALL, raw[:, 7:11], raw[:, 11:14] + colour]
    return torch.cat([part.float() for part in numbers], dim=1)


def _up(direction: Float[Tensor, "bv 3 p q"]) -> Float[Tensor, "bv 3 p q"]:
    """The network's world is +Y up."""
    return torch.zeros_like(direction).index_fill(1, torch.tensor([1], device=direction.device), 1.0)
