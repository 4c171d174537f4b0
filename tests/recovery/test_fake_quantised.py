"""The grids that training for int8 rounds to: values by hand, gradients, and where they stand in a graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeprune.graph.capture import capture
from edgeprune.graph.operators import operator_name
from edgeprune.recovery.fake_quantised import activation_on_grid, fake_quantised, weight_on_grid


def test_activations_fall_on_256_levels_between_their_ends() -> None:
    x = torch.tensor([-1.0, -0.006, 0.0, 0.013, 1.55], requires_grad=True)  # a level every 0.01
    rounded = activation_on_grid(x)
    torch.testing.assert_close(rounded, torch.tensor([-1.0, -0.01, 0.0, 0.01, 1.55]), atol=1e-6, rtol=0)
    (rounded * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]  # as if nothing were done


def test_zero_is_a_level_of_what_is_positive_alone() -> None:
    x = torch.tensor([1.0, 2.55])
    torch.testing.assert_close(activation_on_grid(x), x, atol=1e-6, rtol=0)
    assert torch.equal(activation_on_grid(torch.zeros(3)), torch.zeros(3))


@pytest.mark.parametrize(
    ("per_channel", "wanted"),
    [(False, [[12.7, -0.1], [0.1, 0.0]]), (True, [[12.7, -0.1], [0.127, 0.014]])],
)
def test_weights_fall_on_255_levels_of_one_scale_or_one_per_output(
    per_channel: bool, wanted: list[list[float]]
) -> None:
    weight = torch.tensor([[12.7, -0.08], [0.127, 0.0143]])
    torch.testing.assert_close(
        weight_on_grid(weight, per_channel, None, None, 0.0), torch.tensor(wanted), atol=1e-6, rtol=0
    )


def test_a_batch_norm_behind_takes_part_in_the_rounding() -> None:
    weight = torch.tensor([[1.0, 0.3], [1.0, 0.3]], requires_grad=True)
    gamma, variance = torch.tensor([127.0, 0.0]), torch.tensor([4.0, 1.0])
    rounded = weight_on_grid(weight, False, gamma, variance, 0.0)
    # The first row is folded to 63.5 and 19.05, in steps of 0.5; the second one is cut off, whatever it is.
    torch.testing.assert_close(rounded, torch.tensor([[1.0, 19.0 / 63.5], [1.0, 0.3]]), atol=1e-6, rtol=0)
    rounded.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(weight.grad, torch.ones(2, 2))  # type: ignore[arg-type]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm(self.conv(x)))
        logits: torch.Tensor = self.head((y + y.flip(2)).mean((2, 3)))
        return logits


def test_the_twin_has_the_network_s_weights_and_nothing_of_it_changes() -> None:
    torch.manual_seed(0)
    net = Net().eval()
    with torch.no_grad():
        net.get_buffer("norm.running_var").uniform_(0.5, 2)
        net.norm.weight.uniform_(0.5, 2)
    captured = capture(net, (torch.randn(4, 2, 6, 6),))
    twin = fake_quantised(captured, per_channel=False)
    assert sorted(twin.state_dict()) == sorted(captured.module.state_dict())
    assert not set(map(id, twin.parameters())) & set(map(id, captured.module.parameters()))
    rounded = [node for node in twin.graph.nodes if node.target in (activation_on_grid, weight_on_grid)]
    users = [operator_name(next(iter(node.users))) for node in rounded]
    assert sorted(users) == ["add", "add", "conv2d", "conv2d", "linear", "linear", "mean"]
    x = torch.randn(16, 2, 6, 6)
    with torch.no_grad():
        exact, near = captured.module(x), twin.eval()(x)
        trained = twin.train()(x)  # the batch norm is frozen
    error = float((near - exact).norm() / exact.norm())
    assert 1e-3 < error < 0.05
    assert torch.equal(near, trained)
