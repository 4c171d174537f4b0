"""The forms that ncnn has compute what the others do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeprune.export.fixed_batch import fixed_program
from edgeprune.export.ncnn_graph import for_ncnn


class EverySecond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, 1::3], (0, 1)) + x[:, :1, 1:, -5:][:, :, ::2]


class EverySecondOfLines(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2].mean(1)


class Heads(nn.Module):
    """Query, key and value out of one tensor; `how` they are taken."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.qkv, self.how = nn.Linear(12, 36), how

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        whole = self.qkv(x).reshape(n, t, 3, 2, 6)
        if self.how == "unbind":
            q, k, v = whole.permute(2, 0, 3, 1, 4).unbind(0)
        elif self.how == "select":
            turned = whole.permute(2, 0, 3, 1, 4)
            q, k, v = turned[0], turned[1], turned[-1]
        else:
            q, k, v = (part.transpose(1, 2) for part in whole.unbind(2))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, 12)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (EverySecond(), (1, 3, 8, 11)),
        (EverySecondOfLines(), (1, 4, 9)),
        *((Heads(how), (1, 5, 12)) for how in ("unbind", "select", "unbind 2")),
    ],
    ids=["pictures", "lines", "unbind", "select", "unbind 2"],
)
def test_other_form_same_values(module: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    program = for_ncnn(fixed_program(module, (x,), "ncnn"), (x,))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    steps = [
        node.args[4] for node in program.graph.nodes if node.target is torch.ops.aten.slice.Tensor and node.args[4:]
    ]
    assert all(step == 1 for step in steps)
    assert torch.ops.aten.unbind.int not in targets
    ranks = [node.meta["val"].ndim for node in program.graph.nodes if hasattr(node.meta.get("val"), "ndim")]
    assert max(ranks) <= 4
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), module(x))


class Mixed(nn.Module):
    """The heads come before the three: what one takes is not in one piece."""

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = x.reshape(1, 5, 2, 3, 6).unbind(3)
        return a + b * c


def test_what_has_no_other_form_stays() -> None:
    x = torch.randn(1, 5, 36)
    program = for_ncnn(fixed_program(Mixed(), (x,), "ncnn"), (x,))
    assert torch.ops.aten.unbind.int in [node.target for node in program.graph.nodes]
    torch.testing.assert_close(program.module()(x), Mixed()(x))
