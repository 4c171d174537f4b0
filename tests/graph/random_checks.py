"""What must hold of a random network and of everything that is pruned from it."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.graph.coupling import Granularity
from edgeprune.graph.storage import load
from edgeprune.records.candidate import Candidate
from tests.graph.independent import written_by_fx
from tests.graph.random_nets import Network, Program
from tests.graph.random_programs import inputs_of
from tests.graph.random_reference import reference

__all__ = ["Checked", "check", "check_candidate"]

GRANULARITIES = tuple(
    Granularity(split, grouped) for split in ("outer", "inner") for grouped in ("positions", "groups")
)


@dataclass(slots=True)
class Checked:
    """How much was checked."""

    candidates: int = 0
    groups: int = 0


def check(program: Program, seed: int, folder: Path | None = None, candidates: int = 3) -> Checked:
    """Prune the program at every granularity by random candidates; with a folder, saved and loaded as well."""
    choose = random.Random(seed)
    network, inputs = Network(program), inputs_of(program)
    net = capture(network, inputs)
    checked = Checked()
    for granularity in GRANULARITIES:
        coupled = Captured(net.module, net.example_inputs, batch_dynamic=net.batch_dynamic, granularity=granularity)
        assert not _unlisted(coupled), f"in no group: {_unlisted(coupled)}"
        for i in range(candidates if coupled.groups else 0):
            candidate = _candidate(coupled, choose, i)
            pruned = check_candidate(network, coupled, candidate)
            checked.candidates += 1
            checked.groups += len(candidate.kept)
            if i == 0 and folder is not None and granularity == GRANULARITIES[0]:
                pruned.save(folder / "small.pt2")
                again = load(folder / "small.pt2")
                for a, b in zip(_outputs(again.module, inputs), _outputs(pruned.module, inputs), strict=True):
                    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    return checked


def check_candidate(network: Network, net: Captured, candidate: Candidate) -> Pruned:
    """Prune, compare with the reference at two batch sizes, prune again, train; gives what was pruned."""
    pruned = net.prune(candidate)
    assert pruned.module.code == written_by_fx(pruned)
    gone = _gone(net, candidate, network)
    for batch in (2, 3) if net.batch_dynamic else (2,):
        inputs = inputs_of(network.program, batch, seed=batch)
        with torch.no_grad():
            found = _outputs(pruned.module, inputs)
            expected = reference(network, gone, inputs)
        for output, (data, left_out) in zip(found, expected, strict=True):
            assert not left_out.any(), f"{candidate.kept}: an output is gone"
            torch.testing.assert_close(
                output, data, rtol=1e-9, atol=1e-9 * max(1.0, float(data.abs().max())),
                msg=lambda m, c=candidate: f"{c.kept}: {m}",
            )  # fmt: skip
    before = sum(p.numel() for p in net.module.parameters())
    after = sum(p.numel() for p in pruned.module.parameters())
    floats = {name for name, _ in network.named_parameters()}
    if any(m.parameter in floats for g in net.groups if g.name in candidate.kept for m in g.members):
        assert after < before
    pruned.prune(pruned.uniform(0.5))
    trained = copy.deepcopy(pruned.module).train()
    sum(y.sum() for y in _outputs(trained, inputs_of(network.program))).backward()
    return pruned


def _outputs(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    outputs = module(*inputs)
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]


def _unlisted(net: Captured) -> set[str]:
    listed = {member.parameter for group in (*net.groups, *net.frozen) for member in group.members}
    return {name for name, p in net.module.named_parameters() if p.is_floating_point()} - listed


def _candidate(net: Captured, choose: random.Random, turn: int) -> Candidate:
    """First one unit of one group, then a random choice of all groups."""
    if turn == 0:
        group = choose.choice(net.groups)
        gone = choose.randrange(group.units)
        return net.candidate({group.name: [u for u in range(group.units) if u != gone]})
    kept = {
        group.name: choose.sample(range(group.units), choose.randint(1, group.units - 1))
        for group in net.groups
        if choose.random() < 0.8
    }
    return net.candidate(kept or {net.groups[0].name: [0]})


def _gone(net: Captured, candidate: Candidate, network: Network) -> dict[str, Tensor]:
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    gone: dict[str, Tensor] = {}
    for group in net.groups:
        if group.name not in candidate.kept:
            continue
        removed = [u for u in range(group.units) if u not in candidate.kept[group.name]]
        for member in group.members:
            mask = gone.setdefault(member.parameter, torch.zeros(tensors[member.parameter].shape, dtype=torch.bool))
            mask.index_fill_(member.dim, torch.from_numpy(member.indices[removed].ravel()), True)
    return gone
