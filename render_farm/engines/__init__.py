"""Other ways to spread a run over machines than the local scheduler: a Ray cluster, SLURM job arrays.

Both hand out whole shards to `render_farm.run.scheduler.run_shards`, so that keys, membership and cameras are the same
everywhere, and receipts, not the engine, tell what is done.

One shard, one worker at a time: whoever seals looks for a receipt before its tar takes its name, but no store that fsspec
knows lets a tar and its receipt appear together. Two that seal the same shard in the same minute may leave the tar of one
beside the receipt of the other; `verify` finds that wherever the two tars differ. The local scheduler and the Ray driver
hold the run's lock; of `worker` and SLURM each share must run once at a time. Locks on a shared disk are no help there:
some know none, and others keep those of a node that died, which would stop its job from being started again.
"""
