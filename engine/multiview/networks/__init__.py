"""The networks of both papers on diffusers' and transformers' building blocks."""
