"""The training engine: one visible loop, optimizers, schedules and checkpoints. Knows nothing of Ray."""
