"""Weights & Biases: a view of a study's tables, written by a process that training does not wait for.

    driver (`rung run`) -- starts --> follow.py: mirror.py reads the tables, sender.py writes W&B runs
    `rung wandb sync`   -- calls  --> sync.py:   the same, once, from what is on disk

Everything that is sent comes from Parquet, and which rows a W&B run already has is asked of W&B itself, so either may
be killed at any moment and begin again. Only `sender.py` imports wandb.
"""
