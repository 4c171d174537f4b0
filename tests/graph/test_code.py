"""The code of a pruned network is what fx would write, without fx having written it where it need not."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.fx import Graph

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from tests.graph.independent import parts, written_by_fx
from tests.graph.models import FAMILIES, build


def halved(captured: Captured) -> Pruned:
    return captured.prune(captured.uniform(0.5, "random"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_the_code_that_fx_writes(family: str) -> None:
    model, inputs = build(family)
    captured = capture(model, inputs)
    small = halved(captured)
    assert small.module.code == written_by_fx(small)
    again = halved(small)  # of what was pruned already, and of a copy that fx compiled
    assert again.module.code == written_by_fx(again)
    copied = copy.deepcopy(small.module)
    assert copied.code == small.module.code
    with torch.no_grad():
        torch.testing.assert_close(copied(*inputs), small.module(*inputs), rtol=0, atol=0)


def test_where_no_literal_changes_the_code_is_shared() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)
    ).eval()
    inputs = (torch.randn(2, 3, 8, 8),)
    captured = capture(model, inputs)
    small = halved(captured)
    assert type(small.module).forward is type(captured.module).forward
    assert type(small.module) is not type(captured.module)
    # Whoever edits the smaller graph does not touch the whole one.
    node = next(node for node in small.module.graph.nodes if "relu" in node.name)
    node.replace_all_uses_with(node.args[0])
    small.module.graph.erase_node(node)
    small.module.recompile()
    assert node.name not in small.module.code
    assert node.name in captured.module.code
    with torch.no_grad():
        assert not torch.equal(small.module(*inputs), halved(captured).module(*inputs))
        torch.testing.assert_close(captured.module(*inputs), model(*inputs))


def test_literals_are_changed_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = build("mobilenet_v2")  # the groups of depthwise convolutions
    captured = capture(model, inputs)
    written: list[Graph] = []
    generate = Graph.python_code

    def counted(graph: Graph, *arguments: object, **named: object) -> object:
        if graph.nodes:
            written.append(graph)
        return generate(graph, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Graph, "python_code", counted)
    small = captured.prune(captured.uniform(0.5, "random"), verify=False)
    assert not [graph for graph in written if len(graph.nodes) > 1]
    monkeypatch.undo()
    assert small.module.code == written_by_fx(small) != captured.module.code


def test_where_operators_change_fx_writes_the_code() -> None:
    model = parts(
        lambda s, x: torch.cat(s.a(x).chunk(2, 1)[::-1], 1) @ s.w,
        a=torch.nn.Linear(6, 8),
        w=torch.randn(8, 3),
    )
    captured = capture(model, torch.randn(4, 6))
    group = captured.groups[0]
    small = captured.prune(captured.candidate({group.name: list(range(group.units - 1))}))
    assert "split_with_sizes" in small.module.code
    assert small.module.code == written_by_fx(small)
