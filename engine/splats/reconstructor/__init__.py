"""Feed-forward reconstruction: a few posed pictures in, Gaussians out (LGM, and VideoMV's use of it)."""

from engine.splats.reconstructor.cameras import InputFrame, input_frame, released_cameras
from engine.splats.reconstructor.heads import QuaternionNorm, gaussians_from_raw, published_numbers, without_transparent
from engine.splats.reconstructor.network import CONFIGS, GaussianUNet
from engine.splats.reconstructor.reconstructor import Reconstructor

__all__ = [
    "CONFIGS",
    "GaussianUNet",
    "InputFrame",
    "QuaternionNorm",
    "Reconstructor",
    "gaussians_from_raw",
    "input_frame",
    "published_numbers",
    "released_cameras",
    "without_transparent",
]
