"""Where the tensors of a run stand in one flat row, so that a pack of runs is one tensor with a row for each.

Shape suffixes: N runs, P numbers in a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rung.errors import RungError

_ALIGNMENT = 64
"""Every tensor starts at a multiple of so many numbers, and rows are as long: kernels like aligned memory, and meet the
same borders in every row."""


class Layout:
    """The layout of a row.

    Args:
        tensors: of one run; others with the same shapes can be stacked.

    Raises:
        RungError: they are not all of one type, so that no row can hold them.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        types = sorted({str(tensor.dtype) for tensor in tensors})
        if len(types) > 1:
            raise RungError(
                f"runs that are trained together need parameters of one type, and the model has {' and '.join(types)}: "
                "use replication: serial"
            )
        self._shapes = [tensor.shape for tensor in tensors]
        sizes = [tensor.numel() for tensor in tensors]
        self._pieces = [piece for size in sizes for piece in (size, -size % _ALIGNMENT)]
        """Sizes of tensors and, after each, of the gap that follows it."""

    def split(self, row_P: torch.Tensor) -> list[torch.Tensor]:
        """The tensors of a row, as views. Its gradient is put together at once, with zeros in the gaps."""
        pieces = row_P.split(self._pieces)[::2]  # type: ignore[no-untyped-call]
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]

    def stack(self, rows: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """(N, P): the tensors of each run in a row, copied, with zeros in the gaps."""
        stacked_NP = rows[0][0].new_zeros(len(rows), sum(self._pieces))
        for row_P, tensors in zip(stacked_NP, rows, strict=True):
            for place, tensor in zip(self.split(row_P), tensors, strict=True):
                place.copy_(tensor.detach())
        return stacked_NP
