"""Keys and values of the positions that a decoder has seen, in memory that grows with them.

Attention reads all of it for every token, and reads faster where little unused room lies between the rows.

Shape suffixes: B rows, H heads, S positions, E width of a head.
"""

from __future__ import annotations

import torch

STEP = 64
"""Positions by which the memory grows: its contents are copied every so many tokens."""


class KeyValueCache:
    """Room for at most `length` positions; rows, heads and type are those of what comes first.

    Args:
        length: see above.
        step: positions by which the memory grows.
    """

    def __init__(self, length: int, step: int = STEP) -> None:
        self.length, self.step = length, step
        self.filled = 0
        """Positions that every layer holds; the decoder moves it after a forward pass."""
        self._room = 0
        self._layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def extend(self, layer: int, k_BHSE: torch.Tensor, v_BHSE: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes keys and values of new positions behind the filled ones and gives those of all positions back.

        Layers come one after another, from 0 on.
        """
        end = self.filled + k_BHSE.shape[2]
        if end > self._room:
            self._room = min(self.length, end + self.step)
            self._move(slice(None))
        if layer == len(self._layers):
            rows, heads, _, width = k_BHSE.shape
            shape = (rows, heads, self._room, width)
            self._layers.append((k_BHSE.new_zeros(shape), v_BHSE.new_zeros(shape)))
        keys_BHSE, values_BHSE = (held[:, :, :end] for held in self._layers[layer])
        keys_BHSE[:, :, self.filled :] = k_BHSE
        values_BHSE[:, :, self.filled :] = v_BHSE
        return keys_BHSE, values_BHSE

    def whole(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """All memory of a layer, dense, with zeros where nothing has been written yet."""
        return self._layers[layer]

    def keep(self, rows: torch.Tensor) -> None:
        """Forgets all rows but these (int64 indices)."""
        self._move(rows)

    def _move(self, rows: torch.Tensor | slice) -> None:
        """Puts these rows into memory of the present size, one layer at a time, since it is there twice meanwhile."""
        for layer, (keys_BHSE, values_BHSE) in enumerate(self._layers):
            self._layers[layer] = (self._moved(keys_BHSE, rows), self._moved(values_BHSE, rows))

    def _moved(self, held_BHSE: torch.Tensor, rows: torch.Tensor | slice) -> torch.Tensor:
        kept_BHSE = held_BHSE[rows, :, : self.filled]
        moved_BHSE = held_BHSE.new_zeros(*kept_BHSE.shape[:2], self._room, held_BHSE.shape[-1])
        moved_BHSE[:, :, : self.filled] = kept_BHSE
        return moved_BHSE
