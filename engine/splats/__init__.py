"""3D Gaussians: the type, three renderers with one signature, and fitting to an orbit."""

from engine.splats.gaussians import Gaussians
from engine.splats.rendering import Rendering, render

__all__ = ["Gaussians", "Rendering", "render"]
