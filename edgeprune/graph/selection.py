"""Selection: which units of which groups stay, given a score per unit and how much is to go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from edgeprune.errors import UsageError, did_you_mean
from edgeprune.graph.groups import ChannelGroup

if TYPE_CHECKING:
    from torch import nn
    from torch.fx import GraphModule

__all__ = ["Compare", "channels_per_unit", "ignored_groups", "kept_units", "structures"]

Compare = Literal["layer", "global", "isomorphic"]
Structure = tuple[tuple[tuple[tuple[str, int], ...], int, str], ...]


def kept_units(
    module: GraphModule,
    groups: Sequence[ChannelGroup],
    scores: Mapping[str, NDArray[np.float64]],
    ratio: float,
    *,
    compare: Compare = "layer",
    ignored: str | nn.Module | Iterable[str | nn.Module] = (),
    min_width: int = 1,
    min_share: float = 0.0,
    round_to: int | Mapping[str, int] = 1,
) -> dict[str, tuple[int, ...]]:
    """Per group that gets narrower the units that stay, ascending; see `Prunable.select` for what is what.

    Of units with the same score the earlier one stays, in graph order. Raises UsageError.
    """
    _check(ratio, compare, min_width, min_share)
    _check_scores(groups, scores)
    whole = ignored_groups(module, groups, ignored)
    steps = _steps(module, groups, round_to)
    free = [group for group in groups if group.name not in whole]
    least = {g.name: _least(g, steps[g.name], min_width, min_share) for g in free}
    kept: dict[str, tuple[int, ...]] = {}
    for rivals in _rivals(module, free, compare):
        for group, wanted in zip(rivals, _wanted(rivals, scores, least, ratio), strict=True):
            width = max(_nearest(wanted, steps[group.name], group.units), least[group.name])
            if width < group.units:
                best = np.argsort(-scores[group.name], kind="stable")[:width]
                kept[group.name] = tuple(np.sort(best).tolist())
    return {group.name: kept[group.name] for group in free if group.name in kept}


def channels_per_unit(group: ChannelGroup) -> int:
    """How many channels go with one unit: 1 for a convolution's filter, the head size for an attention head."""
    return min(int(member.indices.shape[1]) for member in group.members)


def structures(module: GraphModule, groups: Sequence[ChannelGroup]) -> dict[str, Structure]:
    """What each group looks like but for its sizes: groups of the same structure are isomorphic.

    Per member the operators that read the parameter (with the place among their arguments), the dimension and
    the role; sorted. After "Isomorphic Pruning" (Fang et al. 2024, arXiv:2407.04616).
    """
    from edgeprune.graph.operators import operator_name

    readers: dict[str, set[tuple[str, int]]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            places = readers.setdefault(str(node.target), set())
            for user in node.users:
                position = next((i for i, argument in enumerate(user.args) if argument is node), -1)
                places.add((operator_name(user), position))
    return {
        group.name: tuple(sorted((tuple(sorted(readers.get(m.parameter, ()))), m.dim, m.role) for m in group.members))
        for group in groups
    }


def ignored_groups(
    module: nn.Module, groups: Sequence[ChannelGroup], ignored: str | nn.Module | Iterable[str | nn.Module]
) -> set[str]:
    """The names of the groups that stay whole, as they hold output channels of a layer that is ignored.

    A pattern (as in a shell, `*` crosses dots) stands for groups, parameters and layers (a parameter's name without
    its last part); a module for its parameters, which the captured graph shares with the user's model. Raises
    UsageError where one matches nothing.
    """
    from torch import nn

    # A module may be iterable (nn.Sequential), and is one thing all the same.
    patterns = [ignored] if isinstance(ignored, str | nn.Module) else list(ignored)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    found: set[str] = set()
    for pattern in patterns:
        if isinstance(pattern, str):
            found |= _matching(pattern, groups, names, "ignored")
        else:
            own = _parameters_of(pattern, module)
            found |= {g.name for g in groups if any(m.parameter in own and m.role != "consumer" for m in g.members)}
    return found


def _parameters_of(part: nn.Module, module: nn.Module) -> set[str]:
    wanted = {id(parameter) for parameter in part.parameters()}
    names = {name for name, parameter in module.named_parameters(remove_duplicate=False) if id(parameter) in wanted}
    if wanted and not names:
        raise UsageError(
            f"ignored: the captured model shares no parameter with the {type(part).__name__} given",
            hint="give a module of the very model that was captured, or a pattern of names",
        )
    return names


def _matching(pattern: str, groups: Sequence[ChannelGroup], parameters: Sequence[str], what: str) -> set[str]:
    """The groups whose name fits, or of which a member that is no consumer fits by parameter or layer."""
    fitting = {name for name in parameters if _fits(name, pattern)}
    found = {
        g.name
        for g in groups
        if fnmatchcase(g.name, pattern) or any(m.role != "consumer" and m.parameter in fitting for m in g.members)
    }
    if not found and not fitting:
        layers = {name.rpartition(".")[0] for name in parameters}
        near = get_close_matches(pattern, sorted({*layers, *parameters, *(g.name for g in groups)}), n=6, cutoff=0)
        raise UsageError(f"{what}: nothing is named like {pattern!r}", hint=did_you_mean(pattern, near) + ", …")
    return found


def _fits(parameter: str, pattern: str) -> bool:
    return fnmatchcase(parameter, pattern) or fnmatchcase(parameter.rpartition(".")[0], pattern)


def _steps(module: nn.Module, groups: Sequence[ChannelGroup], round_to: int | Mapping[str, int]) -> dict[str, int]:
    """Per group the number of units that its width is a multiple of; the first pattern that fits counts."""
    patterns = round_to if isinstance(round_to, Mapping) else {"*": round_to}
    names = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    steps: dict[str, int] = {}
    for pattern, channels in patterns.items():
        _check_number(channels, f"round_to for {pattern!r}", whole=True)
        if channels < 1:
            message = f"widths cannot be rounded to multiples of {channels}"
            raise UsageError(message, hint="a whole number of channels; 1 does not round")
        fitting = {g.name for g in groups} if pattern == "*" else _matching(pattern, groups, names, "round_to")
        for group in groups:
            if group.name in fitting and group.name not in steps:
                steps[group.name] = channels // math.gcd(channels, channels_per_unit(group))
    return {group.name: steps.get(group.name, 1) for group in groups}


def _least(group: ChannelGroup, step: int, min_width: int, min_share: float) -> int:
    """The narrowest width in units: never none, a multiple of the step or the full width."""
    units = max(1, math.ceil(min_width / channels_per_unit(group)), math.ceil(group.units * min_share - 1e-9))
    return min(math.ceil(units / step) * step, group.units)


def _nearest(wanted: float, step: int, units: int) -> int:
    """The multiple of the step that is nearest, or the full width where that is nearer still."""
    multiple = round(wanted / step) * step
    return units if abs(units - wanted) < abs(multiple - wanted) else multiple


def _rivals(module: GraphModule, groups: list[ChannelGroup], compare: Compare) -> list[list[ChannelGroup]]:
    """The groups whose units compete with each other."""
    if compare == "layer":
        return [[group] for group in groups]
    if compare == "global":
        return [groups] if groups else []
    alike: dict[Structure, list[ChannelGroup]] = {}
    shapes = structures(module, groups)
    for group in groups:
        alike.setdefault(shapes[group.name], []).append(group)
    return list(alike.values())


def _wanted(
    rivals: Sequence[ChannelGroup],
    scores: Mapping[str, NDArray[np.float64]],
    least: Mapping[str, int],
    ratio: float,
) -> list[float]:
    """How many units of each group would stay, before rounding: the lowest scores of all rivals go.

    The best `least` units of each group are out of reach, and the share that goes is made up by the others.
    """
    if len(rivals) == 1:
        return [rivals[0].units * (1 - ratio)]
    values = np.concatenate([scores[group.name] for group in rivals])
    owner = np.repeat(np.arange(len(rivals)), [group.units for group in rivals])
    order = np.argsort(-values, kind="stable")
    safe = np.zeros(len(values), np.bool_)
    start = 0
    for group in rivals:
        best = np.argsort(-scores[group.name], kind="stable")[: least[group.name]]
        safe[start + best] = True
        start += group.units
    losing = order[~safe[order]][::-1][: round(len(values) * ratio)]
    gone = np.bincount(owner[losing], minlength=len(rivals))
    return [float(group.units - int(count)) for group, count in zip(rivals, gone, strict=True)]


def _check_number(value: object, what: str, *, whole: bool = False) -> None:
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if not isinstance(value, kinds) or isinstance(value, bool):
        kind = "a whole number" if whole else "a number"
        raise UsageError(f"{what} cannot be {value!r}", hint=f"{kind} is expected")


def _check(ratio: float, compare: str, min_width: int, min_share: float) -> None:
    _check_number(ratio, "the pruning ratio")
    _check_number(min_width, "min_width", whole=True)
    _check_number(min_share, "min_share")
    if not 0 <= ratio < 1:
        raise UsageError(f"the pruning ratio {ratio} is not between 0 and 1", hint="0.5 removes half of the units")
    if compare not in get_args(Compare):
        raise UsageError(f"units cannot be compared by {compare!r}", hint=did_you_mean(compare, get_args(Compare)))
    if min_width < 0 or not 0 <= min_share <= 1:
        raise UsageError(
            f"no group can keep {min_width} channels and the share {min_share}",
            hint="min_width is a number of channels, min_share a share of the units between 0 and 1",
        )


def _check_scores(groups: Sequence[ChannelGroup], scores: Mapping[str, NDArray[np.float64]]) -> None:
    for group in groups:
        values = scores.get(group.name)
        if values is None or values.shape != (group.units,) or not np.isfinite(values).all():
            raise UsageError(
                f"group {group.name!r} of {group.units} units has no finite score for each of them",
                hint="weights or gradients may be infinite or not a number; or the importance breaks its contract",
            )
