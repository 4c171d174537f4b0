"""Which method is worth it, from measured figures alone: rules, each of which gives its reason in words.

Fine-tuning comes later: what a method that can be trained loses before it is told, and not held against it where a
budget limits the accuracy. A gain is one that the 95 % interval of its ratio proves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edgeprune.records.budget import Budget, BudgetCheck, State
from edgeprune.records.figures import Figures, format_figure

__all__ = ["Method", "Ratio", "Recommendation", "ratio_of", "recommend"]

_FIGURES = ("latency", "peak_memory", "size", "download", "energy")
_PRIORITY = ("latency", "peak_memory", "size", "download")
_PHONE_PRIORITY = ("peak_memory", "latency", "size", "download")  # an app that takes too much is ended by the system
_LEAST = 0.01  # of a figure: below, no product notices
_LOSS_PP = 1.0  # of accuracy, in percentage points: what counts as kept where no budget says it


@dataclass(frozen=True, slots=True)
class Ratio:
    """A method's figure over the dense model's, with its 95 % interval where there is one.

    `change`: is it proved to be less, or more? What is exact is its own interval.
    """

    value: float
    lower: float | None
    upper: float | None
    change: Literal["less", "more", "none"]

    def __str__(self) -> str:
        if self.lower is None or self.upper is None:
            return f"{self.value:.3f} x (no interval)"
        if self.lower == self.upper:
            return f"{self.value:.3f} x"
        return f"{self.value:.3f} x ({self.lower:.3f} to {self.upper:.3f})"


@dataclass(frozen=True, slots=True)
class Method:
    """What one method makes of the model. `ratios`: of "latency", "peak_memory", "size", "download" (the file by xz).

    `missing` says of each part that is not there why ("latency", "accuracy"; "" is all of it). `trains` tells whether
    fine-tuning can still give accuracy back. `agreement` is the share of examples with the dense model's class.
    """

    name: str  # "structured 50 %", "2:4", "unstructured 80 %", "int8 ...", "structured 50 % + int8 ..."
    kind: Literal["structured", "sparse", "int8", "both"]
    figures: Figures = field(default_factory=dict)
    ratios: Mapping[str, Ratio] = field(default_factory=dict)
    accuracy_change: float | None = None  # a fraction: -0.01 is a point less
    agreement: float | None = None
    relative_error: float | None = None  # of the outputs, against the dense model's
    recovery: str = ""
    trains: bool = False
    check: BudgetCheck | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> float | None:
        """What of the accuracy, or else of the agreement, is gone; None where neither is known."""
        if self.accuracy_change is not None:
            return max(-self.accuracy_change, 0.0)
        return None if self.agreement is None else 1 - self.agreement

    def gains(self, figure: str) -> bool:
        """Whether the figure is proved to be less than the dense model's."""
        ratio = self.ratios.get(figure)
        return ratio is not None and ratio.change == "less"


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`method` is the name of the one to use, None where none is worth it. `needs`: the figures that decided."""

    method: str | None
    needs: tuple[str, ...]
    text: str
    reasons: tuple[str, ...]  # one per method, then what else weighed in


def ratio_of(name: str, figures: Figures, dense: Figures, *, interval: bool = True) -> Ratio | None:
    """The ratio of two figures, each of which lies as far above its lower bound as below its upper one.

    Without an `interval` (one reading each) nothing is proved. None where a figure is missing.
    """
    after, before = figures.get(name), dense.get(name)
    if after is None or before is None or after.value is None or not before.value:
        return None
    value = after.value / before.value
    if not interval or after.upper is None or before.upper is None:
        return Ratio(value, None, None, "none")
    noise, dense_noise = after.upper - after.value, before.upper - before.value
    lower = max(after.value - noise, 0.0) / before.upper
    upper = after.upper / (before.value - dense_noise) if before.value > dense_noise else None
    if upper is None:
        return Ratio(value, None, None, "none")
    change: Literal["less", "more", "none"] = "less" if upper < 1 else "more" if lower > 1 else "none"
    return Ratio(value, lower, upper, "none" if abs(value - 1) < _LEAST else change)


def recommend(
    methods: Sequence[Method], dense: Figures, budget: Budget, *, phone: bool, weights_share: float
) -> Recommendation:
    """The method to use. `weights_share`: how much of weights and activations together are weights, counted."""
    reasons = (*(_about(method) for method in methods), *_compose(methods), _weight(weights_share))
    limited = budget.check(dense, dense).only(accuracy=False)
    if limited.limits:
        return _within(methods, limited, reasons)
    return _by_priority(methods, _PHONE_PRIORITY if phone else _PRIORITY, phone, reasons)


def _within(methods: Sequence[Method], limited: BudgetCheck, reasons: tuple[str, ...]) -> Recommendation:
    """By the budget: the one that loses least among those that meet all limits, else the one that comes nearest."""
    violated = [entry for entry in limited.limits if entry.state is not State.MET]
    if not violated:
        return Recommendation(None, (), "The dense model meets the budget as it is: nothing has to go.", reasons)
    needs = tuple(entry.limit.figure for entry in violated)
    exceeded = ", ".join(
        f"{entry.limit.metric} {entry.limit.text}"
        + ("" if entry.value is None else f" (it has {format_figure(entry.limit.figure, entry.value)})")
        for entry in violated
    )
    known = [method for method in methods if _excess(method) is not None and not _spoilt(method)]
    if not known:
        return Recommendation(
            None, needs, f"The dense model misses {exceeded}; no method could be measured that keeps it.", reasons
        )
    met = [m for m in known if m.check is not None and m.check.only(accuracy=False).state is State.MET]
    if met:
        best = min(met, key=lambda m: (_loss(m), methods.index(m)))
        text = f"{best.name}: the dense model misses {exceeded}; with it every limit of the device is met"
        others = [m for m in met if m is not best]
        if others:
            text += f", and it loses least of the {len(met)} methods that do"
        return Recommendation(best.name, needs, f"{text}{_price_in(best)}. {_next(best)}", reasons)
    best = min(known, key=lambda m: (_excess(m), _loss(m), methods.index(m)))
    if (_excess(best) or 0.0) >= _worst(limited):
        text = f"The dense model misses {exceeded}, and no method comes nearer to it."
        return Recommendation(None, needs, text, reasons)
    text = (
        f"{best.name}: the dense model misses {exceeded}; no method as tried here meets every limit, this comes nearest"
    )
    return Recommendation(best.name, needs, f"{text}{_price_in(best)}. {_next(best)}", reasons)


def _by_priority(
    methods: Sequence[Method], priority: tuple[str, ...], phone: bool, reasons: tuple[str, ...]
) -> Recommendation:
    """Without a budget: the first figure in the order of importance in which a method gains anything."""
    order = ", ".join(_title(figure) for figure in priority)
    why = f"No budget says what counts; on {'a phone' if phone else 'a board'} that is, in this order, {order}."
    for figure in priority:
        gaining = [method for method in methods if method.gains(figure)]
        if not gaining:
            continue
        kept = [m for m in gaining if m.lost is not None and m.lost * 100 <= _LOSS_PP]
        if kept:
            best = min(kept, key=lambda m: (m.ratios[figure].value, _loss(m)))
            what = f"the most of what keeps the accuracy to {_LOSS_PP:g} pp without training"
        else:
            trained = [m for m in gaining if m.trains]
            best = min(trained or gaining, key=lambda m: (_price(m, figure), m.ratios[figure].value))
            lost = "what it loses is not known" if best.lost is None else f"it loses {best.lost * 100:.1f} pp so far"
            what = f"and no method keeps the accuracy to {_LOSS_PP:g} pp without training: {lost}"
        gain = f"{_title(figure)} {best.ratios[figure]}{_price_in(best)}"
        return Recommendation(best.name, (figure,), f"{best.name}: {gain}, {what}. {why} {_next(best)}", reasons)
    return Recommendation(
        None, priority[:1], f"No method is worth it on this device: none gains anything. {why}", reasons
    )


def _price(method: Method, figure: str) -> float:
    """Accuracy lost per share gained; of what is not known the most."""
    if method.lost is None:
        return float("inf")
    return method.lost / max(1 - method.ratios[figure].value, 1e-9)


def _loss(method: Method) -> float:
    return 1.0 if method.lost is None else method.lost


def _excess(method: Method) -> float | None:
    """By how much of it the worst limit of the device is exceeded; None where one is not known."""
    return None if method.check is None else _worst_or_none(method.check.only(accuracy=False))


def _worst(check: BudgetCheck) -> float:
    found = _worst_or_none(check)
    return float("inf") if found is None else found


def _worst_or_none(check: BudgetCheck) -> float | None:
    shares = [
        None if entry.value is None or entry.bound is None else max(entry.value, entry.upper or 0.0) / entry.bound - 1
        for entry in check.limits
    ]
    known = [share for share in shares if share is not None]
    return max(known) if len(known) == len(shares) else None


def _spoilt(method: Method) -> bool:
    """Whether its accuracy is below what the budget allows, and no training can change that."""
    if method.trains or method.check is None:
        return False
    return method.check.only(accuracy=True).state is State.VIOLATED


def _about(method: Method) -> str:
    """All that was measured of a method, in a line."""
    if "" in method.missing:
        return f"{method.name}: not measured: {method.missing['']}"
    told: dict[str, list[str]] = {"less": [], "more": [], "none": []}
    for figure in _FIGURES:
        if figure in method.ratios:
            ratio = method.ratios[figure]
            told[ratio.change].append(f"{_title(figure)} {ratio}")
    words = {"less": "gains", "more": "costs", "none": "no gain in"}
    parts = [f"{words[change]} {', '.join(found)}" for change, found in told.items() if found]
    parts += [f"{_title(name)} unknown: {why}" for name, why in method.missing.items() if name != "accuracy"]
    if method.accuracy_change is not None:
        parts.append(f"accuracy {method.accuracy_change * 100:+.1f} pp" + (" before training" if method.trains else ""))
    elif method.agreement is not None:
        parts.append(f"the dense model's class on {method.agreement:.1%} of the examples")
    elif "accuracy" in method.missing:
        parts.append(f"accuracy unknown: {method.missing['accuracy']}")
    if method.kind == "sparse" and method.gains("download") and len(told["less"]) == 1:
        parts.append("zeros make nothing but the download smaller here")
    return f"{method.name}: {'; '.join(parts)}"


def _title(figure: str) -> str:
    return figure.replace("_", " ")


def _price_in(method: Method) -> str:
    """What gets worse by it."""
    worse = [f"{_title(name)} {ratio}" for name, ratio in method.ratios.items() if ratio.change == "more"]
    return f", at the price of {' and '.join(worse)}" if worse else ""


def _compose(methods: Sequence[Method]) -> list[str]:
    """Whether the two that are measured together are worth more than each alone."""
    found = []
    for both in methods:
        parts = [method for method in methods if _is_part(method, both)]
        if both.kind == "both" and "latency" in both.ratios and len(parts) == 2:
            told = ", ".join(f"{part.name} {part.ratios['latency'].value:.3f} x" for part in parts)
            better = all(_below(both.ratios["latency"], part.ratios["latency"]) for part in parts)
            verb = "gains more latency than each alone" if better else "is not proved to be faster than each alone"
            found.append(f"{both.name} {verb}: {both.ratios['latency'].value:.3f} x, alone {told}")
    return found


def _below(one: Ratio, other: Ratio) -> bool:
    """Whether the intervals lie apart."""
    return one.upper is not None and other.lower is not None and one.upper < other.lower


def _is_part(method: Method, both: Method) -> bool:
    return method is not both and "latency" in method.ratios and method.name in both.name


def _weight(share: float) -> str:
    if share >= 0.5:
        return f"weights are {share:.0%} of weights and activations (counted): what makes them smaller counts in memory"
    return (
        f"weights are only {share:.0%} of weights and activations (counted): memory is in the activations, which "
        "channels and int8 make smaller, and zeros do not"
    )


def _next(method: Method) -> str:
    """What to do with it."""
    search = "`edgeprune run` searches the widths, fine-tunes, and proves the budget"
    int8 = "ONNX Runtime's quantize_static makes it, with the scheme named here"
    if method.kind == "sparse":
        return "`edgeprune sparsify` makes it."
    if method.kind == "int8":
        return f"{int8}."
    if method.kind == "both":
        return f"{search}; {int8} of what comes out."
    return f"{search}." if method.trains else f"{search}; without a training part what is lost stays lost."
