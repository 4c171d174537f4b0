"""What an interpreter shows of a captured model, its groups and its candidates: one line that tells them apart."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from torch import nn

from edgeprune.errors import CaptureError, UsageError
from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured
from edgeprune.records.candidate import Candidate


def small() -> Captured:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), (torch.randn(2, 6),))


def test_a_model_and_its_groups_in_a_line() -> None:
    captured = small()
    assert re.fullmatch(r"Captured\(92 parameters, 1 channel group, \d frozen\)", repr(captured))
    (group,) = captured.groups
    assert repr(group) == f"ChannelGroup({group.name!r}, 8 units, 3 members)"
    assert [repr(member) for member in group.members] == [
        "Member('0.weight', dim 0, producer, 8 units of 1)",
        "Member('0.bias', dim 0, producer, 8 units of 1)",
        "Member('2.weight', dim 1, consumer, 8 units of 1)",
    ]
    frozen = captured.frozen[0]
    assert repr(frozen).endswith(f" members, frozen: {frozen.frozen})")


def test_a_pruned_model_names_its_candidate_and_its_proof() -> None:
    captured = small()
    candidate = captured.uniform(0.5)
    name = captured.groups[0].name
    assert repr(candidate) == f"Candidate({candidate.id}: {name} keeps 4)"
    shown = repr(captured.prune(candidate))
    assert re.fullmatch(
        rf"Pruned\(48 parameters, 1 channel group, \d frozen, candidate {candidate.id}, verified to \S+\)", shown
    )
    assert "not verified" in repr(captured.prune(candidate, verify=False))


def test_a_candidate_of_many_groups_stays_short() -> None:
    many = Candidate({f"g{n}": (0, 1) for n in range(5)}, ("block1",), {"w": "2:4"})
    assert repr(many) == (
        f"Candidate({many.id}: g0 keeps 2, g1 keeps 2, g2 keeps 2, 2 more; 1 blocks dropped; 1 weights sparse)"
    )
    assert repr(Candidate()) == f"Candidate({Candidate().id}: dense)"


@pytest.mark.parametrize("units", [(), (0, -1, 3), (0, 99, 3), (-1, 2), (0, 6)])
def test_kept_units_must_be_there_in_whatever_order(units: tuple[int, ...]) -> None:
    net = capture(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(2, 4))
    with pytest.raises(UsageError, match=r"group '0': the kept units must be a non-empty choice of 0 to 5"):
        net.prune(Candidate({"0": units}))
    assert net.prune(Candidate({"0": (3, 0)})).cost().params == 4 * 2 + 2 + 2 * 2 + 2


def test_copies_are_their_own_whatever_was_asked_before() -> None:
    captured = small()
    pruned = captured.prune(captured.uniform(0.5))
    assert pruned.groups
    assert captured.blocks == ()
    for model in (captured, pruned):
        copied = copy.deepcopy(model)
        assert [repr(group) for group in copied.groups] == [repr(group) for group in model.groups]
        assert set(copied.module.graph.nodes).isdisjoint(model.module.graph.nodes)
        x = torch.randn(3, 6)
        assert torch.equal(copied.module(x), model.module(x))
        smaller = copied.prune(copied.uniform(0.5)).module
        assert smaller(x).shape == (3, 4)


def test_a_name_that_is_no_name_in_code_is_told() -> None:
    model = nn.Sequential(nn.Linear(4, 8))
    model.add_module("class", nn.Linear(8, 2))
    with pytest.raises(
        CaptureError, match=r"^the model's names make no code: class_weight = self\.class\.weight"
    ) as told:
        capture(model, torch.randn(2, 4))
    assert told.value.hint is not None
    assert told.value.hint.startswith("rename submodules and parameters that are called like a keyword of Python")
