"""Turntable's render farm: known objects in, orbits of posed images out. Blender lives in `worker`, a child process."""
