"""How good results are: pictures against pictures, meshes against meshes, presets against stored orbits.

images, views, perceptual   PSNR, SSIM, LPIPS of pictures      mesh, objects   meshes and splats against the true object
consistency                 do an orbit's views agree?         baselines       what stands beside a preset
samples, variants, making, measuring, record, statistics, report, sheet    what engine.evaluate walks through
"""

from engine.errors import EvaluationError
from engine.evaluation.images import over_white, psnr_db, ssim
from engine.evaluation.mesh import MeshError, measure_mesh

__all__ = ["EvaluationError", "MeshError", "measure_mesh", "over_white", "psnr_db", "ssim"]
