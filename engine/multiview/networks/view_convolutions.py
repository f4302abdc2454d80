"""Convolutions over the views alone, [b c n h w] with a kernel of (k, 1, 1), as both video U-Nets have by the dozen.

torch has no quick 3D kernel on CPUs; the same sums as a 2D convolution over views and pixels take half the time there.
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional


class ViewConvolution(nn.Conv3d):
    """A Conv3d that is a 2D convolution on CPUs; same weights, same numbers but for rounding."""

    def forward(self, input: Float[Tensor, "b c n h w"]) -> Float[Tensor, "b d m h w"]:  # torch's name
        """Convolve."""
        if input.is_cuda:
            return super().forward(input)
        height, width = input.shape[3:]
        made = functional.conv2d(
            input.flatten(3), self.weight.squeeze(-1), self.bias, padding=(int(self.padding[0]), 0)
        )
        return made.unflatten(3, (height, width))


def use_view_convolutions(network: nn.Module) -> None:
    """Let every convolution over views alone be a `ViewConvolution`; parameters and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv3d and _over_views_alone(module):
            module.__class__ = ViewConvolution


def _over_views_alone(module: nn.Conv3d) -> bool:
    plain = module.stride == (1, 1, 1) and module.dilation == (1, 1, 1) and module.groups == 1
    return plain and module.kernel_size[1:] == (1, 1) and tuple(module.padding[1:]) == (0, 0)
