"""What a search knows of its own end: what bound it, what it could not plan for, and why a budget cannot be met."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.figures import format_figure

__all__ = ["Explanation", "Infeasibility", "Reach"]


@dataclass(frozen=True, slots=True)
class Reach:
    """How far one figure can be brought: the smallest value, of an accuracy the highest. None where not known.

    `alone` where no other limit holds, `together` where all others hold: both predicted. `measured` is the figure of
    the trial that built it, `trial` its number. `relaxed` is what the limit would be in the least joint relaxation.
    """

    figure: str
    limit: float
    alone: float | None = None
    together: float | None = None
    measured: float | None = None
    trial: int | None = None
    relaxed: float | None = None


@dataclass(frozen=True, slots=True)
class Infeasibility:
    """Why no candidate meets a budget. `proved` of the option space and the calibrated cost model, not of the device.

    `one_by_one`: each limit can be met alone, yet not all together. `relaxation` is the least share by which all
    limits would have to grow (an allowed drop of accuracy as well), and `trial` built that candidate.
    `accuracy_aside`: accuracy is limited and not among these, as no network was fine-tuned wholly that would tell.
    """

    proved: bool
    reach: tuple[Reach, ...]
    one_by_one: bool = False
    relaxation: float | None = None
    trial: int | None = None
    accuracy_aside: bool = False

    def __str__(self) -> str:
        """In a sentence or two."""
        parts = []
        if self.one_by_one:
            parts.append("each limit can be met alone, but not all together")
        parts.extend(_reached(reach) for reach in self.reach if reach.together is not None)
        if self.relaxation is not None:
            relaxed = ", ".join(
                f"{reach.figure} {format_figure(reach.figure, reach.relaxed)}"
                for reach in self.reach
                if reach.relaxed is not None
            )
            built = "" if self.trial is None else f", as trial {self.trial} shows by measurement how near"
            parts.append(f"all limits {self.relaxation:.1%} wider could be met ({relaxed}{built})")
        if parts and self.accuracy_aside:
            parts.append("the limit on accuracy is left aside in this: no network was fine-tuned wholly, to tell")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`binding`: the figures whose limit, were it wider, would cost less accuracy. `unplanned`: those that only
    measurements could hold against their limits, as nothing predicts them.
    """

    binding: tuple[str, ...] = ()
    unplanned: tuple[str, ...] = ()
    infeasibility: Infeasibility | None = None


def _reached(reach: Reach) -> str:
    what = "the highest" if reach.figure == "accuracy" else "the smallest"
    value = format_figure(reach.figure, reach.together or 0.0)
    built = ""
    if reach.measured is not None:
        built = f", measured {format_figure(reach.figure, reach.measured)} (trial {reach.trial})"
    return f"{reach.figure}: {what} under the other limits is {value} by prediction{built}"
