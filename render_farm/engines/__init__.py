"""Other ways to spread a run over machines than the local scheduler: a Ray cluster, SLURM job arrays.

Both hand out whole shards to `render_farm.run.scheduler.run_shards`, so that keys, membership and cameras are the same
everywhere, and receipts, not the engine, tell what is done.
"""
