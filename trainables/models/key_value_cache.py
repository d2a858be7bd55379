"""Keys and values of the positions that a decoder has seen, in memory that is claimed once.

Shape suffixes: B rows, H heads, S positions, E width of a head.
"""

from __future__ import annotations

import torch


class KeyValueCache:
    """Room for `length` positions; rows, heads and type are those of what comes first."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.filled = 0
        """Positions that every layer holds; the decoder moves it after a forward pass."""
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def extend(self, layer: int, k_BHSE: torch.Tensor, v_BHSE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of new positions behind the filled ones and gives those of all positions back.

        Layers come one after another, from 0 on.
        """
        if layer == len(self._layers):
            rows, heads, _, width = k_BHSE.shape
            shape = (rows, heads, self.length, width)
            self._layers.append((k_BHSE.new_empty(shape), v_BHSE.new_empty(shape)))
        end = self.filled + k_BHSE.shape[2]
        keys_BHSE, values_BHSE = (held[:, :, :end] for held in self._layers[layer])
        keys_BHSE[:, :, self.filled :] = k_BHSE
        values_BHSE[:, :, self.filled :] = v_BHSE
        return keys_BHSE, values_BHSE

    def keep(self, rows: torch.Tensor) -> None:
        """Forgets all rows but these (int64 indices)."""
        self._layers = [(self._of(keys, rows), self._of(values, rows)) for keys, values in self._layers]

    def _of(self, held_BHSE: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        kept_BHSE = held_BHSE.new_empty(len(rows), *held_BHSE.shape[1:])
        kept_BHSE[:, :, : self.filled] = held_BHSE[rows, :, : self.filled]
        return kept_BHSE
