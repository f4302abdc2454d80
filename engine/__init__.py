"""Turntable's engine: trains and runs the models, reconstructs splats and meshes. Never sees Blender."""
