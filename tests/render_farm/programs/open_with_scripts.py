"""Blender program: open a .blend as a careless user would, its scripts allowed. ``python open_with_scripts.py FILE``"""

import os
import sys
import tempfile

os.environ["BLENDER_USER_RESOURCES"] = tempfile.mkdtemp()

import bpy

bpy.ops.wm.open_mainfile(filepath=sys.argv[1], use_scripts=True)
bpy.context.view_layer.update()
sys.stdout.flush()
os._exit(0)
