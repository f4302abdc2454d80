"""What can be chosen when an orbit becomes a mesh: one frozen dataclass, read by tyro."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Progress = Callable[[str, float], None]
"""Called with a stage's name and the share of the whole that is done, 0 to 1."""

Surface = Literal["auto", "orbit", "splats", "outlines"]
"""What shows a mesh's surface: the orbit's own depth maps, the depth of splats, or the views' outlines alone (their hull, for
generated views that are too blurred to agree about depth); auto: the maps where the orbit has them, else the splats."""


@dataclass(frozen=True)
class MeshSettings:
    """How depth maps become a mesh and views become its texture."""

    surface: Surface = "auto"
    """What shows the surface."""
    resolution: int = 224
    """Voxels along the longest side of what was seen."""
    truncation_voxels: float = 3.0
    """A view decides a voxel only within this many voxels of the surface that it sees; farther in front is empty."""
    agreement_voxels: float = 1.0
    """Views whose distances lie this close to the largest one are averaged; raise it for noisy depth (splats: 2)."""
    free_views: int = 1
    """So many views must see through a voxel before it counts as empty; 2 forgives single wrong depth pixels, and outlines
    that one view draws too small."""
    thinnest_voxels: float = 1.3
    """Sheets that are seen from both sides become at least so thick, in voxels; thinner ones cannot be meshed."""
    alpha_level: float = 0.5
    """Alpha at which the silhouette is drawn, 0 to 1."""
    centred: bool = True
    """The object's bounding box is centred on the origin: what no camera saw is clipped where the box must end."""
    fill: float = 0.5
    """What nobody saw: 0 keeps a thin shell behind seen surfaces, 1 fills all that no camera saw through."""
    target_faces: int = 24_000
    """Triangles after decimation, about."""
    smoothing_steps: int = 6
    """Taubin steps before decimation; 0 keeps the voxels' steps."""
    texture_size: int = 1024
    """Side of the texture in pixels."""
    padding_px: int = 8
    """Texels that are painted around every UV island."""
    sharpness: float = 6.0
    """Views are blended with weights cos(angle) ** sharpness: higher is crisper, lower hides seams."""
    given_view_weight: float = 10.0
    """How much more than the others a view paints that is the given picture itself, where the others were generated: with
    10, all that faces it by 45 degrees or less. What it sees through is empty, whatever others say."""
    threads: int = 4
    """CPU threads."""


FROM_SPLATS = MeshSettings(agreement_voxels=2.0, free_views=2)
"""For depth that is a few millimetres off and blended across edges, as splats give it."""
