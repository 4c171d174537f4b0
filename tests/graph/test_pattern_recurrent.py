"""Recurrent layers: which indices go together, and that the smaller network computes what is left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from tests.graph.independent import check, frozen, indices, parts, units

TOKENS = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
KINDS = {"lstm": (nn.LSTM, 4), "gru": (nn.GRU, 3), "rnn": (nn.RNN, 1)}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("kind", "layers", "bidirectional"),
    [("lstm", 1, False), ("lstm", 2, True), ("gru", 2, False), ("gru", 1, True), ("rnn", 1, False), ("rnn", 2, True)],
)
def test_units_go_through_gates_layers_and_directions(kind: str, layers: int, bidirectional: bool) -> None:
    module, gates = KINDS[kind]
    directions = 1 + bidirectional
    model = parts(
        lambda s, x: s.head(s.cell(s.inner(x))[0]),
        inner=nn.Linear(7, 5),
        cell=module(5, 4, num_layers=layers, bidirectional=bidirectional, batch_first=True),
        head=nn.Linear(4 * directions, 3),
    )
    net = check(model, TOKENS)
    assert units(net) == {"inner": 5, "cell.weight_ih_l0": 4}
    name = "cell.weight_ih_l0"
    assert indices(net, "inner", "cell.weight_ih_l0", 1) == [[i] for i in range(5)]
    assert indices(net, name, "cell.weight_ih_l0", 0) == [[4 * g + i for g in range(gates)] for i in range(4)]
    assert indices(net, name, "cell.bias_hh_l0", 0) == [[4 * g + i for g in range(gates)] for i in range(4)]
    assert indices(net, name, "cell.weight_hh_l0", 1) == [[i] for i in range(4)]
    both = [[4 * d + i for d in range(directions)] for i in range(4)]
    assert indices(net, name, "head.weight", 1) == both
    if layers == 2:
        assert indices(net, name, "cell.weight_ih_l1", 1) == both


@pytest.mark.filterwarnings("error")
def test_capture_warns_of_nothing_and_leaves_the_layer_as_it_was() -> None:
    model = parts(lambda s, x: s.head(s.cell(x)[0]), cell=nn.LSTM(7, 4, batch_first=True), head=nn.Linear(4, 3))
    before = model(TOKENS)
    net = capture(model, (TOKENS,))
    assert torch.equal(model(TOKENS), before)
    torch.testing.assert_close(net.module(TOKENS), before)


def test_sequence_first_without_bias() -> None:
    model = parts(
        lambda s, x: s.head(s.cell(x.transpose(0, 1))[0].transpose(0, 1)),
        cell=nn.GRU(7, 4, bias=False), head=nn.Linear(4, 3),
    )  # fmt: skip
    assert units(check(model, TOKENS)) == {"cell.weight_ih_l0": 4}


def test_projected_state() -> None:
    model = parts(
        lambda s, x: s.head(s.cell(x)[0]), cell=nn.LSTM(7, 6, 2, proj_size=4, batch_first=True), head=nn.Linear(4, 3)
    )
    net = check(model, TOKENS)
    assert sorted(units(net).values()) == [4, 6]
    state = next(g.name for g in net.groups if g.units == 6)
    passed = next(g.name for g in net.groups if g.units == 4)
    assert indices(net, state, "cell.weight_hr_l0", 1) == [[i] for i in range(6)]
    assert indices(net, passed, "cell.weight_hr_l0", 0) == [[i] for i in range(4)]
    assert indices(net, passed, "cell.weight_hh_l0", 1) == indices(net, passed, "head.weight", 1)
    assert indices(net, passed, "cell.weight_ih_l1", 1) == [[i] for i in range(4)]


def test_last_state() -> None:
    model = parts(lambda s, x: s.head(s.cell(x)[1][0][-1]), cell=nn.LSTM(7, 4, batch_first=True), head=nn.Linear(4, 3))
    net = check(model, TOKENS)
    assert indices(net, "cell.weight_ih_l0", "head.weight", 1) == [[i] for i in range(4)]


def test_last_cell_state_of_both_directions() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        _, (hidden, cell) = s.cell(x)
        return s.head(torch.cat([hidden[-2], hidden[-1], cell[0]], 1))

    model = parts(forward, cell=nn.LSTM(7, 4, bidirectional=True, batch_first=True), head=nn.Linear(12, 3))
    net = check(model, TOKENS)
    assert indices(net, "cell.weight_ih_l0", "head.weight", 1) == [[i, i + 4, i + 8] for i in range(4)]


def test_last_step_of_the_sequence() -> None:
    model = parts(lambda s, x: s.head(s.cell(x)[0][:, -1]), cell=nn.GRU(7, 4, batch_first=True), head=nn.Linear(4, 3))
    assert units(check(model, TOKENS)) == {"cell.weight_ih_l0": 4}


@pytest.mark.parametrize("start", ["zeros", "new_zeros", "learned", "computed"])
def test_given_first_state(start: str) -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        if start == "zeros":
            h = torch.zeros(1, x.shape[0], 4)
        elif start == "new_zeros":
            h = x.new_zeros(1, x.shape[0], 4)
        elif start == "learned":
            h = s.first.expand(1, x.shape[0], 4).contiguous()
        else:
            h = torch.tanh(s.start(x[:, 0]))[None]
        return s.head(s.cell(x, h)[0])

    model = parts(
        forward, cell=nn.GRU(7, 4, batch_first=True), head=nn.Linear(4, 3), start=nn.Linear(7, 4),
        first=nn.Parameter(torch.randn(1, 1, 4)),
    )  # fmt: skip
    net = check(model, TOKENS)
    (name,) = (g.name for g in net.groups if any(m.parameter == "cell.weight_hh_l0" for m in g.members))
    assert indices(net, name, "cell.weight_hh_l0", 1) == [[i] for i in range(4)]
    if start == "learned":
        assert indices(net, name, "first", 2) == [[i] for i in range(4)]
    if start == "computed":
        assert indices(net, name, "start.weight", 0) == [[i] for i in range(4)]


def test_a_first_state_from_outside_freezes() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        return s.head(s.cell(x, x[:, 0, :4][None].contiguous())[0])

    net = capture(parts(forward, cell=nn.GRU(7, 4, batch_first=True), head=nn.Linear(4, 3)), (TOKENS,))
    assert net.groups == ()
    assert frozen(net, "cell.weight_ih_l0") == "gru in cell starts from a fixed state"


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_cells_step_by_step(kind: str) -> None:
    module, gates = {"lstm": (nn.LSTMCell, 4), "gru": (nn.GRUCell, 3), "rnn": (nn.RNNCell, 1)}[kind]

    def forward(s: nn.Module, x: Tensor) -> Tensor:
        state = None
        for t in range(3):
            state = s.cell(x[:, t], state)
        return s.head(state[0] if kind == "lstm" else state)

    net = check(parts(forward, cell=module(7, 4), head=nn.Linear(4, 3)), TOKENS)
    assert units(net) == {"cell.weight_ih": 4}
    assert indices(net, "cell.weight_ih", "cell.weight_ih", 0) == [[4 * g + i for g in range(gates)] for i in range(4)]
    assert indices(net, "cell.weight_ih", "cell.weight_hh", 1) == [[i] for i in range(4)]


def test_gates_written_by_hand() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        h = torch.zeros(x.shape[0], 4)
        for t in range(3):
            r, z, n = s.i(x[:, t]).chunk(3, 1)
            hr, hz, hn = s.h(h).chunk(3, 1)
            z = torch.sigmoid(z + hz)
            h = (1 - z) * torch.tanh(n + torch.sigmoid(r + hr) * hn) + z * h
        return s.head(h)

    net = check(parts(forward, i=nn.Linear(7, 12), h=nn.Linear(4, 12), head=nn.Linear(4, 3)), TOKENS)
    assert units(net) == {"i": 4}
    assert indices(net, "i", "h.weight", 0) == [[i, i + 4, i + 8] for i in range(4)]
    assert indices(net, "i", "h.weight", 1) == [[i] for i in range(4)]


def test_convolutions_before_and_after() -> None:
    def forward(s: nn.Module, x: Tensor) -> Tensor:
        y = torch.relu(s.conv(x.transpose(1, 2))).transpose(1, 2)
        return s.head(s.cell(y)[0].transpose(1, 2))

    model = parts(
        forward,
        conv=nn.Conv1d(7, 5, 2),
        cell=nn.LSTM(5, 4, batch_first=True, bidirectional=True),
        head=nn.Conv1d(8, 3, 1),
    )
    net = check(model, TOKENS)
    assert units(net) == {"conv": 5, "cell.weight_ih_l0": 4}
    assert indices(net, "conv", "cell.weight_ih_l0_reverse", 1) == [[i] for i in range(5)]
