"""A stacked LSTM language model: per gate one linear map of [input, h] with Xavier weights and zero biases.

Layer by layer, with dropout between layers. The recurrence of many rows runs in `recurrence.py` on a CPU, otherwise in
torch's fused kernel; `fused = False` switches to the written-out steps, which give the same numbers within rounding
and which torch.func can transform. Leaves out bidirectional layers and projections.

Shape suffixes: B rows, S positions, Q positions from `start` on, I input width, D width, G = 4 D gates, L layers,
P distinct states, V vocabulary.
"""

from __future__ import annotations

import math
import warnings

import torch
from torch import nn
from torch.nn import functional as F

from trainables.models.layers import Dropout, Prefix, embedding, linear
from trainables.models.recurrence import Recurrence

FEWEST_ROWS = 200
"""Rows from which the recurrence of `recurrence.py` is faster on a CPU than torch's kernel, whose calls are fewer."""

State = tuple[torch.Tensor, torch.Tensor]
"""Hidden and cell state (h, c), each (L, B, D)."""


class LSTMLayer(nn.Module):
    """One layer; the gates are stacked in torch's order input, forget, cell, output.

    Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000, and one bias per gate.
    """

    no_bias_4D: torch.Tensor

    def __init__(self, inputs: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inputs = inputs
        # Xavier-uniform of one gate's (width, inputs + width) matrix; the gates are alike: one draw for all.
        bound = math.sqrt(6 / (inputs + width + width))
        weight = torch.empty(4 * width, inputs + width, device=generator.device)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound, generator=generator))
        self.bias = nn.Parameter(torch.zeros(4 * width, device=generator.device))
        # The kernel wants a second bias, for the recurrent half: a constant zero is none.
        self.register_buffer("no_bias_4D", torch.zeros_like(self.bias), persistent=False)

    def forward(self, x_BSI: torch.Tensor, state: State, fused: bool = True) -> tuple[torch.Tensor, State]:
        """Outputs (B, S, D) and the last (h, c), each (B, D) like the given ones."""
        if not fused:
            return self._written_out(x_BSI, state)
        weights = [*self.split_weight(), self.bias, self.no_bias_4D]
        h_BD, c_BD = state
        with warnings.catch_warnings():
            # cuDNN copies the two halves of the stacked matrix together at every call, and says so.
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
            y_BSD, h_1BD, c_1BD = torch.lstm(
                x_BSI, [h_BD[None], c_BD[None]], weights, True, 1, 0.0, self.training, False, True
            )
        return y_BSD, (h_1BD[0], c_1BD[0])

    def split_weight(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of the input (G, I) and of the hidden state (G, D)."""
        input_weight, recurrent_weight = self.weight.split([self.inputs, self.weight.shape[1] - self.inputs], dim=1)
        return input_weight, recurrent_weight

    def _written_out(self, x_BSI: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        h_BD, c_BD = state
        outputs = []
        for x_BI in x_BSI.unbind(dim=1):
            gates = torch.cat([x_BI, h_BD], dim=-1) @ self.weight.T + self.bias
            into, forget, cell, out = gates.chunk(4, dim=-1)
            c_BD = forget.sigmoid() * c_BD + into.sigmoid() * cell.tanh()
            h_BD = out.sigmoid() * c_BD.tanh()
            outputs.append(h_BD)
        return torch.stack(outputs, dim=1), (h_BD, c_BD)


class LSTM(nn.Module):
    """The language model; embedding and hidden state are equally wide.

    Args:
        vocabulary: tokens V.
        layers, width: its size.
        dropout: probability, between layers.
        padding: the token whose embedding is zero, if any.
        tie_embeddings: whether the classifier's weight is the embedding.
        classifier_bias: whether the classifier has a bias.
        generator: draws the initial weights and the dropout masks; its device is the model's.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        layers: int,
        width: int,
        dropout: float = 0.0,
        padding: int | None = None,
        tie_embeddings: bool = False,
        classifier_bias: bool = True,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.fused = True
        self.width = width
        self.embedding = embedding(vocabulary, width, padding=padding, generator=generator)
        self.layers = nn.ModuleList(LSTMLayer(width, width, generator) for _ in range(layers))
        self.dropout = Dropout(dropout, generator)
        self.classifier = linear(width, vocabulary, bias=classifier_bias, generator=generator)
        if tie_embeddings:
            self.classifier.weight = self.embedding.weight

    def forward(self, tokens_BS: torch.Tensor, start: int = 0, prefix: Prefix | None = None) -> torch.Tensor:
        """Logits (B, S - start, V) of the token after each position from `start` on.

        With a `prefix` of length L <= start, the state after the first L tokens is computed once for each
        distinct beginning.
        """
        if prefix is None:
            return self.run(tokens_BS, start=start)[0]
        if start < prefix.length:
            raise ValueError(f"start {start} lies inside the shared prefix")
        _, state = self._recur(prefix.tokens, self._zeros(prefix.tokens))
        y_BSD, _ = self._recur(tokens_BS[:, prefix.length :], state, prefix.index)
        logits_BQV: torch.Tensor = self.classifier(y_BSD[:, start - prefix.length :])
        return logits_BQV

    def run(self, tokens_BS: torch.Tensor, state: State | None = None, start: int = 0) -> tuple[torch.Tensor, State]:
        """Logits (B, S - start, V) and the state after the last token, from `state` (zeros when None)."""
        y_BSD, last = self._recur(tokens_BS, self._zeros(tokens_BS) if state is None else state)
        return self.classifier(y_BSD[:, start:]), last

    def _recur(
        self, tokens_BS: torch.Tensor, state: State, index_B: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, State]:
        """Outputs (B, S, D) of the last layer and the last state, from `state` (each (L, P, D)).

        `index_B` tells which of the P states each row starts from; None: P = B, each from its own.
        """
        if self.fused and tokens_BS.device.type == "cpu" and len(tokens_BS) >= FEWEST_ROWS:
            return self._recur_over_gates(tokens_BS, state, index_B)
        h_LBD, c_LBD = state if index_B is None else (state[0][:, index_B], state[1][:, index_B])
        x_BSD = self.embedding(tokens_BS)
        last = []
        for number, (layer, h_BD, c_BD) in enumerate(zip(self.layers, h_LBD, c_LBD, strict=True)):
            if number:
                x_BSD = self.dropout(x_BSD)
            x_BSD, now = layer(x_BSD, (h_BD, c_BD), self.fused)
            last.append(now)
        return x_BSD, _stack(last)

    def _recur_over_gates(
        self, tokens_BS: torch.Tensor, state: State, index_B: torch.Tensor | None
    ) -> tuple[torch.Tensor, State]:
        """`_recur` on a CPU: products with weights are taken once per distinct token and once per distinct state."""
        y_SBD, last = torch.empty(0), []
        for number, (layer, h_PD, c_PD) in enumerate(zip(self.layers, *state, strict=True)):
            assert isinstance(layer, LSTMLayer)
            input_weight, recurrent_weight = layer.split_weight()
            if number == 0:
                gates_SBG = self._token_gates(tokens_BS.T, input_weight, layer.bias)
            else:
                gates_SBG = F.linear(self.dropout(y_SBD), input_weight, layer.bias)
            first_BG, c_BD = F.linear(h_PD, recurrent_weight), c_PD
            if torch.is_autocast_enabled("cpu"):  # products in bf16, their sums and the cell in fp32
                gates_SBG, first_BG = gates_SBG.float(), first_BG.float()
                recurrent_weight = recurrent_weight.to(torch.get_autocast_dtype("cpu"))
            if index_B is not None:
                first_BG, c_BD = first_BG.index_select(0, index_B), c_PD.index_select(0, index_B)
            y_SBD, c_BD = Recurrence.apply(gates_SBG, first_BG, c_BD, recurrent_weight)  # type: ignore[no-untyped-call]
            last.append((y_SBD[-1], c_BD))
        return y_SBD.transpose(0, 1), _stack(last)

    def _token_gates(self, tokens_SB: torch.Tensor, weight_GD: torch.Tensor, bias_G: torch.Tensor) -> torch.Tensor:
        """What tokens contribute to the gates (S, B, G) of the first layer."""
        vocabulary = self.embedding.num_embeddings
        if vocabulary >= tokens_SB.numel():
            return F.linear(self.embedding(tokens_SB), weight_GD, bias_G)
        every_V = torch.arange(vocabulary, device=tokens_SB.device)
        return F.embedding(tokens_SB, F.linear(self.embedding(every_V), weight_GD, bias_G))

    def _zeros(self, tokens_BS: torch.Tensor) -> State:
        zeros = self.embedding.weight.new_zeros(len(self.layers), tokens_BS.shape[0], self.width)
        return zeros, zeros


def _stack(states: list[State]) -> State:
    """The states of the layers, each (B, D), as one, each (L, B, D)."""
    return torch.stack([h for h, _ in states]), torch.stack([c for _, c in states])
