"""Running a planned study on Ray Tune: the sweep, the trial adapter, seed-aware schedulers, progress."""
