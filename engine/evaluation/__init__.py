"""How good results are: pictures against pictures, meshes against meshes."""

from engine.evaluation.images import over_white, psnr_db, ssim
from engine.evaluation.mesh import EvaluationError, MeshError, measure_mesh

__all__ = ["EvaluationError", "MeshError", "measure_mesh", "over_white", "psnr_db", "ssim"]
