"""The pictures of an object, judged before they are kept. Numpy alone: no Blender, no torch.

verdict     what the measures mean for a run: refuse, flag, keep
pictures    coverage, borders, exposure      surfaces   depth and normals of single views
agreement   one view against another         hashes     names for near-equal pictures
"""

from render_farm.checks.agreement import Agreement, measure_agreement
from render_farm.checks.hashes import NEAR_BITS, hash_distance, picture_hash
from render_farm.checks.verdict import Verdict, examine

__all__ = [
    "NEAR_BITS",
    "Agreement",
    "Verdict",
    "examine",
    "hash_distance",
    "measure_agreement",
    "picture_hash",
]
