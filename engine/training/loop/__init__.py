"""Training's loop: a task and batches to a run's folder.

run (the whole) -> steps (one update), validation, checkpoint and state (what is stored), export (weights out), journal and
record (what is written down); processes, ema, lora, schedule, memory, speed and stopping serve them; estimate is --dry-run
"""
