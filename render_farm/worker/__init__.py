"""The only code of the farm that imports bpy: a program for a child process, started and never imported."""
