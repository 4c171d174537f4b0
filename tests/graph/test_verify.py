"""Verification must catch surgery that is wrong, also where constant parameters would hide it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.fx import GraphModule

from edgeprune.errors import UsageError, VerificationError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from tests.graph.models import FAMILIES, build


def parameters_of(captured: Captured) -> dict[str, torch.Tensor]:
    return dict(captured.module.named_parameters())


@pytest.mark.parametrize("name", FAMILIES)
def test_a_wrong_index_in_any_sliced_parameter_is_caught(name: str) -> None:
    """Mutation: in each sliced weight in turn, two of the kept indices change places."""
    model, inputs = build(name)
    captured = capture(model, inputs)
    candidate = captured.uniform(0.25)
    keep = captured._keep(candidate)
    pruned = captured.prune(candidate)
    dense = parameters_of(captured)
    checked = 0
    for parameter_name, parameter in parameters_of(pruned).items():
        for dim, size in enumerate(parameter.shape):
            if size == dense[parameter_name].shape[dim] or parameter.dim() == 1:
                continue
            original = parameter.detach().clone()
            with torch.no_grad():
                parameter.copy_(original.roll(1, dim))
            with pytest.raises(VerificationError, match="differs from its reference"):
                captured.check(pruned.module, keep)
            with torch.no_grad():
                parameter.copy_(original)
            checked += 1
    assert checked >= 4


def test_a_zero_initialised_branch_does_not_hide_an_error() -> None:
    """Fresh residual scale of zero: without probing, nothing inside the branch reaches the output."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.n, self.b, self.c = (
                nn.Conv2d(3, 8, 1),
                nn.BatchNorm2d(8),
                nn.Conv2d(8, 8, 1),
                nn.Conv2d(8, 4, 1),
            )
            nn.init.zeros_(self.n.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.n(self.b(self.a(x))))

    captured = capture(Residual(), (torch.randn(1, 3, 4, 4),))
    candidate = captured.candidate({"a": [0, 1, 2, 5]})
    pruned = captured.prune(candidate)
    with torch.no_grad():
        weight = pruned.module.get_parameter("b.weight")
        weight.copy_(weight.roll(1, 1))
    with pytest.raises(VerificationError):
        captured.check(pruned.module, captured._keep(candidate))


def test_a_module_that_ignores_the_candidate_is_caught() -> None:
    model, inputs = build("vgg")
    captured = capture(model, inputs)
    keep = captured._keep(captured.uniform(0.5))
    with pytest.raises((VerificationError, RuntimeError)):
        captured.check(GraphModule(captured.module, captured.module.graph), keep)


def test_bad_candidates_are_refused() -> None:
    model, inputs = build("mlp")
    captured = capture(model, inputs)
    with pytest.raises(UsageError, match=r"no prunable channel group is named 'layers\.9'"):
        captured.candidate({"layers.9": [0]})
    with pytest.raises(UsageError, match="non-empty choice of 0 to 31"):
        captured.candidate({"layers.1": []})
    with pytest.raises(UsageError, match="non-empty choice of 0 to 31"):
        captured.candidate({"layers.1": [0, 32]})


def test_same_candidate_same_bytes() -> None:
    model, inputs = build("resnet")
    first, second = (capture(model, inputs).prune(capture(model, inputs).uniform(0.5)) for _ in range(2))
    assert first.candidate.id == second.candidate.id
    for a, b in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert np.array_equal(a.detach().numpy(), b.detach().numpy())
