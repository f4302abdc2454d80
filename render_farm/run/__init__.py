"""A run on one machine: its folder, its state, its slots.

folder     what is to be rendered, frozen (tasks: as much of it as is needed)
owner      who works on it, and the lock
store      what the scheduler remembers (schema: its tables)
staging    finished objects until their shard is sealed
recovery   what a killed scheduler left is put right (orphans: processes too)
finishing  the pool of processes that turn EXRs into staged orbits (finisher: one of them)
sealing    shards whose last object is in, in the background
scheduler  all of it together (settings: how; slots: the threads that each drive a Blender; progress: what is told;
           room: disks that are nearly full; signals: Ctrl-C)
"""
