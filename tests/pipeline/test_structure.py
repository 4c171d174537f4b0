"""The layers that a report shows are those of the network, with the widths that pruning gives them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

import edgeprune
from edgeprune.pipeline.structure import STRUCTURE, structure_of, write_structure
from edgeprune.records.structure import Structure


class Residual(nn.Module):
    """A stem, a block that can be dropped, attention-free; the stem and the block's end are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        return self.head((x + self.block(x)).mean((2, 3)))


def captured() -> edgeprune.Captured:
    torch.manual_seed(0)
    return edgeprune.capture(Residual().eval(), (torch.randn(2, 3, 8, 8),))


def test_layers_come_in_graph_order_with_their_groups_and_reasons() -> None:
    network = captured()
    found = structure_of(network, {"stem"})
    told = [(layer.name, layer.width, [part.group for part in layer.parts], layer.frozen) for layer in found.layers]
    assert told == [
        ("stem", 16, ["stem"], ""),
        ("block.0", 24, ["block.0"], ""),
        ("block.2", 16, ["stem"], ""),
        ("head", 10, [], "is the model's output"),
    ]
    assert [(entry.name, entry.reason) for entry in found.frozen if entry.name == "head"] == [
        ("head", "is the model's output")
    ]
    assert [(block.name, block.layers) for block in found.blocks] == [("block", ("block.0", "block.2"))]
    assert found.ignored == ("block.0",)


def test_the_widths_are_those_that_surgery_gives() -> None:
    network = captured()
    found = structure_of(network, set())
    candidate = network.candidate({"stem": list(range(0, 16, 2)), "block.0": list(range(5))})
    pruned = dict(network.prune(candidate).module.named_parameters())
    for layer in found.layers:
        assert layer.kept(candidate) == pruned[f"{layer.name}.weight"].shape[0]
    assert [layer.kept(candidate) for layer in found.layers] == [8, 5, 8, 10]


def test_heads_of_attention_count_in_channels() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 48, batch_first=True, dropout=0.0)
    network = edgeprune.capture(nn.Sequential(layer, nn.Linear(32, 5)).eval(), (torch.randn(2, 6, 32),))
    candidate = network.candidate({group.name: list(range(group.units // 2)) for group in network.groups})
    pruned = dict(network.prune(candidate).module.named_parameters())
    layers = structure_of(network, set()).layers
    assert {layer.name: (layer.width, layer.kept(candidate)) for layer in layers if layer.parts}.items() >= {
        "0.linear1": (48, 24)
    }.items()
    for layer in layers:
        weight = next(p for n, p in pruned.items() if n.startswith(layer.name) and n.endswith("weight"))
        assert layer.kept(candidate) == weight.shape[0], layer
    assert any(part.channels > 1 for layer in layers for part in layer.parts)  # a head has several


def test_the_file_reads_back(tmp_path: Path) -> None:
    network = captured()
    write_structure(tmp_path, network, {"stem", "block.0"})
    assert Structure.from_json(json.loads((tmp_path / STRUCTURE).read_text())) == structure_of(
        network, {"stem", "block.0"}
    )
