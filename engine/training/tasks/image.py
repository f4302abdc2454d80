"""videomv-image: a picture to 24 views (VideoMV section 3.2, I2VGen-XL's conditions).

The first view is the picture: its latents and its embedding are told, the text is empty. Where the recipe drops
conditions (I2VGen-XL's p_zero), embedding and text go together, as at inference; the latents stay.
"""

from engine.training.tasks.text import build

__all__ = ["build"]
