"""Released checkpoints in, our own layout out: readers, key maps, conversion, the hub."""
