"""Trainables shipped with rung, one folder per family; `models/` holds what they share.

A family's folder names a class that derives from `rung.trainable.Trainable` and registers it in the
entry-point group `rung.trainables`. Nothing under `rung` imports this package.
"""
