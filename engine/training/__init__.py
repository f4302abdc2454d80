"""Training: orbit shards in, weights in our layout out.

    shards --sources, stream--> orbits --clips--> Clip --batches--> Batch --task--> Losses --loop--> a run folder

`engine.training.recipes` names what can be trained; `engine.training.loop.run.train` does it. Nothing heavy is imported here.
"""
