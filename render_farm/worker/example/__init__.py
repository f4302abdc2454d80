"""The project's own example object: a toy lighthouse on a rocky islet, as one closed, textured GLB.

Run as ``python -m render_farm.worker.example --out lighthouse.glb``; __main__.py draws the way from parts to file.
"""
