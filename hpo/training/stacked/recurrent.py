"""Recurrent layers of all members of a stack: torch.nn's RNN, GRU and LSTM, in batched products.

The inputs' products of all times are one product; what follows from the state before goes time by time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

__all__ = ["CELLS", "KINDS", "Cell", "Recurrence", "run_layers", "step_lstm"]

State = tuple[Tensor, ...]  # h, and of an LSTM c: (members, n, width)
# From the products of inputs and of the state (members, n, gates), and the state, to the next state.
Cell = Callable[[Tensor, Tensor, State], State]


@dataclass(frozen=True)
class Recurrence:
    """Recurrent layers, as torch.nn names their settings.

    Attributes:
        cell: computes one step.
        biased: whether there are biases.
        layers: one on top of the other.
        drops: whether there is dropout between them.
        bidirectional: whether each goes through the sequence both ways.
        batch_first: whether samples come before times.
    """

    cell: Cell
    biased: bool
    layers: int
    drops: bool
    bidirectional: bool
    batch_first: bool


def _step_rnn(function: Callable[[Tensor], Tensor], x: Tensor, h: Tensor, _: State) -> State:
    return (function(x + h),)


def _step_gru(x: Tensor, h: Tensor, state: State) -> State:
    gates = x.shape[-1] // 3 * 2
    reset, update = torch.sigmoid(x[..., :gates] + h[..., :gates]).chunk(2, -1)
    new = torch.tanh(torch.addcmul(x[..., gates:], reset, h[..., gates:]))
    return (torch.addcmul(new, state[0] - new, update),)


def step_lstm(x: Tensor, h: Tensor, state: State) -> State:
    """Return the next state of an LSTM."""
    enter, forget, new, leave = (x + h).chunk(4, -1)
    c = torch.addcmul(forget.sigmoid() * state[1], enter.sigmoid(), new.tanh())
    return leave.sigmoid() * c.tanh(), c


KINDS: Mapping[str, Callable[..., Recurrence]] = {
    "rnn_tanh": partial(Recurrence, partial(_step_rnn, torch.tanh)),
    "rnn_relu": partial(Recurrence, partial(_step_rnn, torch.relu)),
    "gru": partial(Recurrence, _step_gru),
    "lstm": partial(Recurrence, step_lstm),
}


CELLS: Mapping[str, Cell] = {
    "rnn_tanh_cell": partial(_step_rnn, torch.tanh),
    "rnn_relu_cell": partial(_step_rnn, torch.relu),
    "gru_cell": _step_gru,
    "lstm_cell": step_lstm,
}


def run_layers(
    recurrence: Recurrence, x: Tensor, tensors: Sequence[Tensor], dropout: Callable[[Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """Return the outputs of the last layer, laid out as x, and the final states of all of them.

    Args:
        recurrence: the layers.
        x: (members, n, times, features), or times before samples.
        tensors: the first states, (members, layers and ways, n, width) each, then the weights in torch's order.
        dropout: what is computed between two layers in training.
    """
    ways = 1 + recurrence.bidirectional
    count = 2 if recurrence.cell is step_lstm else 1
    states, weights = tensors[:count], tensors[count:]
    each = 4 if recurrence.biased else 2
    x = x.transpose(1, 2) if recurrence.batch_first else x
    finals: list[State] = []
    for layer in range(recurrence.layers):
        x = dropout(x) if layer and recurrence.drops else x
        outputs = []
        for way in range(layer * ways, (layer + 1) * ways):
            own = weights[way * each : (way + 1) * each]
            begin = tuple(state[:, way] for state in states)
            sequence, final = _run_way(recurrence.cell, x, begin, own, back=bool(way % ways))
            outputs.append(sequence)
            finals.append(final)
        x = torch.cat(outputs, 3) if len(outputs) > 1 else outputs[0]
    x = x.transpose(1, 2) if recurrence.batch_first else x
    return x, *(torch.stack(state, 1) for state in zip(*finals, strict=True))


def _run_way(cell: Cell, x: Tensor, state: State, weights: Sequence[Tensor], *, back: bool) -> tuple[Tensor, State]:
    """Return the outputs (members, times, n, width) of one way through a sequence, and the final state."""
    members, times, n, _ = x.shape
    enter, stay, *biases = weights
    rows, across = x.reshape(members, times * n, -1), stay.mT
    first, second = (bias.unsqueeze(1) for bias in biases) if biases else (None, None)
    products = torch.bmm(rows, enter.mT) if first is None else torch.baddbmm(first, rows, enter.mT)
    steps = products.view(members, times, n, -1).unbind(1)
    outputs: list[Tensor] = []
    for product in reversed(steps) if back else steps:
        h = torch.bmm(state[0], across) if second is None else torch.baddbmm(second, state[0], across)
        state = cell(product, h, state)
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if back else outputs, 1), state
