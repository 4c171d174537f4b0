"""An independent check: the user's own eager module, in which removed units are zeroed where they are consumed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgeprune.graph.capture import capture
from edgeprune.graph.captured import Captured, Pruned
from edgeprune.graph.groups import ChannelGroup

Removed = Mapping[str, Sequence[int]]  # group name -> units
Reference = Callable[[nn.Module, Captured, Removed], nn.Module | Callable[..., Any]]


class Parts(nn.Module):
    """Modules, parameters and buffers by name, and a forward that uses them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self._run = forward

    def forward(self, *inputs: Tensor) -> Any:
        return self._run(self, *inputs)


def parts(forward: Callable[..., Any], **given: nn.Module | Tensor) -> nn.Module:
    """A model in evaluation mode of which no parameter or statistic is constant, so that none hides an error."""
    model = Parts(forward, **given).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return model


def group_of(net: Captured, name: str) -> ChannelGroup:
    return next(group for group in net.groups if group.name == name)


def indices(net: Captured, group: str, parameter: str, dim: int) -> list[list[int]]:
    """Per unit of the group, the indices of the parameter's dimension."""
    members = group_of(net, group).members
    return next(m.indices.tolist() for m in members if (m.parameter, m.dim) == (parameter, dim))


def units(net: Captured) -> dict[str, int]:
    return {group.name: group.units for group in net.groups}


def zeroed(*roles: str, only: str = "") -> Reference:
    """The model with all weights of removed units that have one of the roles set to zero."""

    def reference(model: nn.Module, net: Captured, removed: Removed) -> nn.Module:
        found = 0
        tensors = dict([*model.named_parameters(remove_duplicate=False), *model.named_buffers()])
        with torch.no_grad():
            for name, gone in removed.items():
                for member in group_of(net, name).members:
                    if member.role in roles and only in member.parameter:
                        index = torch.from_numpy(member.indices[list(gone)].ravel())
                        tensors[member.parameter].index_fill_(member.dim, index, 0)
                        found += 1
        assert found
        return model

    return reference


CONSUMERS = zeroed("consumer")


def check(
    model: nn.Module,
    *inputs: Tensor,
    reference: Reference = CONSUMERS,
    tolerance: float = 1e-4,
    **options: Any,
) -> Captured:
    """Capture; remove each unit on its own, then half of all; each result must equal the reference."""
    with torch.no_grad():
        model(*inputs)  # what a forward hook computes has no history, so that the model can be copied
    net = capture(model, inputs, **options)
    assert net.groups
    removals: list[dict[str, list[int]]] = [
        {group.name: [unit]} for group in net.groups for unit in range(min(group.units, 6)) if group.units > 1
    ]
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        removals.append(
            {g.name: torch.randperm(g.units, generator=generator)[: (g.units + 1) // 2].tolist() for g in net.groups}
        )
    for removed in removals:
        kept = {
            group.name: [u for u in range(group.units) if u not in removed[group.name]]
            for group in net.groups
            if group.name in removed
        }
        pruned = net.prune(net.candidate(kept))
        assert pruned.verification is not None
        assert pruned.verification.relative_error <= 1e-9
        assert pruned.cost().params < net.cost().params
        assert pruned.module.code == written_by_fx(pruned)
        expected = reference(copy.deepcopy(model), net, removed)
        with torch.no_grad():
            for given in [inputs, *([tuple(_longer(x) for x in inputs)] if net.batch_dynamic else [])]:
                wanted = expected(*given)
                scale = float(wanted.abs().max())
                torch.testing.assert_close(
                    pruned.module(*given), wanted, rtol=0, atol=tolerance * scale, msg=lambda m, r=removed: f"{r}: {m}"
                )
    return net


def written_by_fx(pruned: Pruned) -> str:
    """The code that fx generates for the graph."""
    return pruned.module.graph.python_code("self").src


def _longer(x: Tensor) -> Tensor:
    return torch.cat([x, 0.5 * x[:1] if x.is_floating_point() else x[:1]])


def frozen(net: Captured, name: str) -> str:
    """Why a layer is frozen."""
    return next(str(group.frozen) for group in net.frozen if group.name == name)
