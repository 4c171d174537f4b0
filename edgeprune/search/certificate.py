"""Why a budget cannot be met, and how near one gets: by the calibrated cost model, and by building what it names."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from edgeprune.records.candidate import Candidate
from edgeprune.records.explanation import Infeasibility, Reach
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.knowledge import Knowledge
from edgeprune.search.problem import LOSS, RELAXATION, Infeasible, Problem, Solution
from edgeprune.search.script import Batch

__all__ = ["binding", "certify"]

Solve = Callable[[Problem], Solution | Infeasible]
Build = Callable[[Candidate, str], Generator[Batch, tuple[Trial, ...], Trial]]

_MOST_BUILT = 5
_WIDER = 1.05  # a limit is binding if so much more of it lowers the predicted loss
_LOWER = 0.99  # to so much


def binding(known: Knowledge, solve: Solve) -> tuple[str, ...]:
    """The figures whose limit, were it a little wider, would let a more accurate network through."""
    aims = known.aims()

    def least(limits: Mapping[str, float]) -> float | None:
        found = solve(Problem(known.space, known.metrics(), limits, caps=known.caps()))
        return found.value if isinstance(found, Solution) else None

    now = least(aims)
    if not now:  # nothing within, or nothing lost
        return ()
    found = []
    for figure in aims:
        wider = least({**aims, figure: _WIDER * aims[figure]})
        if wider is not None and wider < _LOWER * now:
            found.append(figure)
    return tuple(found)


def certify(known: Knowledge, solve: Solve, build: Build) -> Generator[Batch, tuple[Trial, ...], Infeasibility]:
    """The smallest of each figure under the other limits and the least joint relaxation, each solved for and built."""
    built = 0
    places: dict[str, tuple[Solution | None, Solution | None]] = {}
    for figure in _limits(known):
        objective = LOSS if figure == LOSS else figure
        others = {name: limit for name, limit in _limits(known).items() if name != figure}
        alone, together = (_solved(solve, known, objective, limits) for limits in ({}, others))
        places[figure] = alone, together
        nearest = together or alone
        if nearest is not None and built < _MOST_BUILT - 1 and figure != LOSS:
            built += 1
            yield from build(_candidate(known, nearest), f"the smallest {figure} under the other limits")
    relaxed = _solved(solve, known, RELAXATION, _limits(known))
    trial = None
    if relaxed is not None and relaxed.value > 0:
        trial = yield from build(_candidate(known, relaxed), "the least joint relaxation of the limits")
    found = solve(Problem(known.space, known.metrics(), _limits(known), caps=known.caps()))
    return Infeasibility(
        proved=isinstance(found, Infeasible) and found.proved,
        reach=tuple(_reach(known, figure, *places[figure], relaxed) for figure in places),
        one_by_one=all(alone is not None and _within(known, figure, alone) for figure, (alone, _) in places.items())
        and isinstance(found, Infeasible),
        relaxation=None if relaxed is None or trial is None else relaxed.value,
        trial=None if trial is None else trial.number,
        accuracy_aside=known.allowed_drop() is not None and LOSS not in places,
    )


def _limits(known: Knowledge) -> dict[str, float]:
    """The device's limits, and the predicted loss that the limit on accuracy allows, where experience tells."""
    rate, drop = known.loss_rate(), known.allowed_drop()
    limits = known.limits
    if rate is not None and drop is not None and rate > 0:
        limits[LOSS] = max(drop, 0.0) / rate
    return limits


def _solved(solve: Solve, known: Knowledge, minimise: str, limits: Mapping[str, float]) -> Solution | None:
    found = solve(Problem(known.space, known.metrics(), limits, minimise, known.caps()))
    return found if isinstance(found, Solution) else None


def _within(known: Knowledge, figure: str, solution: Solution) -> bool:
    return solution.value <= _limits(known)[figure] * (1 + 1e-6)


def _candidate(known: Knowledge, solution: Solution) -> Candidate:
    return known.space.candidate(solution.choice.widths, solution.choice.dropped)


def _reach(
    known: Knowledge, figure: str, alone: Solution | None, together: Solution | None, relaxed: Solution | None
) -> Reach:
    limit = _limits(known)[figure]
    wider = None if relaxed is None or relaxed.value <= 0 else limit * (1 + relaxed.value)
    first, second = (None if found is None else found.value for found in (alone, together))
    if figure == LOSS:
        highest = [_accuracy(known, loss) for loss in (limit, first, second, wider)]
        best, number = _best(known)
        return Reach("accuracy", highest[0] or 0.0, highest[1], highest[2], best, number, highest[3])
    nearest = together or alone
    value, number = (None, None) if nearest is None else _measured(known, figure, _candidate(known, nearest))
    return Reach(figure, limit, first, second, value, number, wider)


def _measured(known: Knowledge, figure: str, candidate: Candidate) -> tuple[float, int] | tuple[None, None]:
    """The figure of the candidate's last measurement, and the trial's number."""
    for trial in reversed(known.trials):
        value = trial.figures.get(figure)
        same = trial.candidate.id == candidate.id and trial.stage.is_measured
        if same and value is not None and value.value is not None:
            return value.value, trial.number
    return None, None


def _accuracy(known: Knowledge, loss: float | None) -> float | None:
    """What is left of the dense model's accuracy at a predicted loss."""
    rate, dense = known.loss_rate(), known.dense["accuracy"].value
    return None if loss is None or rate is None or dense is None else dense - rate * loss


def _best(known: Knowledge) -> tuple[float | None, int | None]:
    """The highest accuracy after the whole fine-tuning, and its trial."""
    finals = [
        (figure.value, -trial.number)
        for trial in known.trials
        if trial.stage is Stage.FINAL and (figure := trial.figures.get("accuracy")) and figure.value is not None
    ]
    value, number = max(finals, default=(None, None))
    return value, None if number is None else -number
