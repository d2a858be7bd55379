"""Rotary position embedding (RoPE): queries and keys are turned by an angle that grows with their position.

Su et al. 2021, arXiv 2104.09864. As there, the two that are turned together are neighbours; transformers' Llama pairs
the first and second half of a head, which is the same model with the rows of the projections in another order.

Shape suffixes: B rows, S positions, G heads of queries and keys, E width of a head, C = E / 2 pairs.
"""

from __future__ import annotations

import torch


def rotary_table(length: int, width: int, theta: float, device: torch.device) -> torch.Tensor:
    """Cosine and sine, (length, width / 2, 2), of position / theta^(2 c / width)."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    angle_SC = position / theta ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.stack([angle_SC.cos(), angle_SC.sin()], dim=-1).to(device=device, dtype=torch.float32)


def rotate(x_BSGE: torch.Tensor, table_SC2: torch.Tensor) -> torch.Tensor:
    """Every pair turned by the angle of its position, computed in fp32; the type of x.

    `table_SC2` has the positions' entries of `rotary_table`; with rows, (B, S, C, 2), each row has its own positions.
    """
    pairs_BSGC2 = x_BSGE.to(table_SC2.dtype).unflatten(-1, (-1, 2))
    if x_BSGE.device.type == "cpu" and not torch.compiler.is_compiling():
        # A product of complex numbers is one pass over memory; compiled code makes one pass of the rest, too.
        turned = torch.view_as_complex(pairs_BSGC2) * torch.view_as_complex(table_SC2).unsqueeze(-2)
        return torch.view_as_real(turned).flatten(-2).to(x_BSGE.dtype)
    (first, second), (cosine, sine) = pairs_BSGC2.unbind(-1), table_SC2.unsqueeze(-3).unbind(-1)
    turned = torch.stack([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
    return turned.flatten(-2).to(x_BSGE.dtype)
