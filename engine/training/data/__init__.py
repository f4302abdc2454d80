"""Training's data: shards to batches.

sources (which shards) -> dealing (who reads what, and from where on) -> stream (samples, bad ones told apart by tally)
    -> clips or pictures (augmented, resized, degraded) -> batches (stacked, with what the loop counts by reading)
"""
