"""Which limits bind, and where a budget cannot be met: what was in reach, and how far it is off."""

from __future__ import annotations

from edgeprune.records.explanation import Infeasibility, Reach
from edgeprune.records.figures import format_figure
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, label
from edgeprune.report.html.wording import headroom

__all__ = ["binding"]


def binding(view: View) -> Html:
    """In sentences, and a table of what was reachable."""
    result, explanation = view.result, view.result.explanation
    said: list[Child] = []
    if explanation is not None and explanation.binding:
        names = _listed(explanation.binding)
        said.append(
            tag("p", tag("strong", names), " held the search back: a wider limit there would have cost less accuracy.")
        )
    if explanation is not None and explanation.unplanned:
        held = _listed(explanation.unplanned)
        said.append(tag("p", f"Nothing predicts {held} here: only measurements held it against its limit."))
    least = None if result.check is None else result.check.binding
    if least is not None and least.headroom is not None and len(result.budget.limits) > 1:
        figure, left = label(least.limit.figure), headroom(least)
        said.append(
            tag(
                "p",
                f"By measurement, the limit on {figure} has the least headroom ({left}).",
            )
        )
    if result.message and not view.accepted:
        said.append(tag("p", f"{result.message[:1].upper()}{result.message[1:]}"))
    if explanation is not None and explanation.infeasibility is not None:
        said.append(_infeasible(explanation.infeasibility))
    elif result.reachable:
        said.append(_reachable(view))
    if result.ruled_out:
        rows = [tag("li", _trial(number), f": {reason}") for number, reason in result.ruled_out]
        said.append(join(tag("h3", "Ruled out by the device"), tag("ul", rows)))
    return join(said or tag("p", "No limit stood in the way."))


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(label(name) for name in names)


def _infeasible(why: Infeasibility) -> Html:
    heads = ["figure", "limit", "alone", "under the other limits", "as built", "if all limits were wider"]
    rows = [_reach(reach, heads) for reach in why.reach]
    proof = (
        "It is proved that no choice of widths and blocks meets the budget: of the cost model, not of the device."
        if why.proved
        else "That nothing meets the budget is not proved."
    )
    wider = (
        "" if why.relaxation is None else f" With all limits {why.relaxation * 100:.1f} % wider it would be feasible."
    )
    head = tag("tr", [tag("th", text, scope="col", role="columnheader") for text in heads], role="row")
    table = tag(
        "table", tag("thead", head, role="rowgroup"), tag("tbody", rows, role="rowgroup"), class_="cards", role="table"
    )
    return join(tag("p", proof, wider), table)


def _reach(reach: Reach, heads: list[str]) -> Html:
    def told(value: float | None, kind: str, trial: int | None = None) -> Child:
        if value is None:
            return tag("span", "not known", class_="quiet")
        where = None if trial is None else [" ", _trial(trial)]
        text = format_figure(reach.figure, value, reach.limit)
        return join(tag("span", text, class_="number"), " ", tag("span", kind, class_=f"kind {kind}"), where)

    cells = [
        format_figure(reach.figure, reach.limit),
        told(reach.alone, "estimated"),
        told(reach.together, "estimated"),
        told(reach.measured, "measured", reach.trial),
        told(reach.relaxed, "estimated"),
    ]
    shown = [
        tag("td", tag("div", cell), data_label=head, role="cell") for head, cell in zip(heads[1:], cells, strict=True)
    ]
    return tag("tr", tag("th", label(reach.figure), scope="row", role="rowheader"), shown, role="row")


def _reachable(view: View) -> Html:
    lines = []
    for name, (value, number) in view.result.reachable.items():
        which = "the highest within the device's limits" if name == "accuracy" else "the smallest measured"
        lines.append(tag("li", f"{label(name)}: {format_figure(name, value)}, {which} (", _trial(number), ")"))
    return join(tag("h3", "What was reached"), tag("ul", lines))


def _trial(number: int) -> Html:
    return tag("a", f"trial {number}", href=f"#trial-{number}")
