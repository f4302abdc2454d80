"""The constants of 3DGS rendering that all renderers share (gsplat 1.5.3's, so that they agree)."""

NEAR_M = 0.01
"""Gaussians nearer than this to the camera plane are not drawn, metres."""
BLUR_PX2 = 0.3
"""Added to the diagonal of every 2D covariance, pixels squared: no splat is thinner than a pixel."""
ALPHA_MAX = 0.999
"""Largest alpha of one splat in one pixel."""
ALPHA_MIN = 1.0 / 255.0
"""Splats fainter than this in a pixel are skipped there."""
TRANSMITTANCE_MIN = 1e-4
"""A pixel is finished before the splat that would leave less light than this."""
GUARD_BAND = 1.3
"""The perspective's derivative is taken at most this far outside the picture, in half pictures."""
