"""Several devices of one kind, measured on side by side and judged together: no single specimen decides.

Every artifact is measured on every device at the same time, each of which is exclusive as ever. A device that is not
healthy, or is lost in mid-run, is left out with a warning, and the result says so.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from edgeprune.errors import CannotMeasureError, TargetError, UsageError
from edgeprune.measure.session import Session
from edgeprune.progress import SILENT, Progress, Step
from edgeprune.records.artifact import Artifact
from edgeprune.records.comparison import Comparison
from edgeprune.records.figures import Figure, Figures, figures_of
from edgeprune.records.measurement import Measurement, Outcome
from edgeprune.records.project import JUDGES

__all__ = ["Pool", "PoolMeasurement", "Quiet", "differing", "judged"]

_KIND = ("arch", "bits", "board", "cpu", "cpus")
_MEMORY_SHARE = 0.05  # boards of one kind leave a little more or less of their memory to the kernel

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PoolMeasurement:
    """One artifact on every device, by target. `judge` is a name of JUDGES; `outcome` is that of the whole."""

    parts: Mapping[str, Measurement]
    judge: str
    outcome: Outcome
    message: str = ""

    def figures(self, artifact: Artifact | None, accuracy: float | None) -> dict[str, Figure]:
        """Of each figure, that of the worst device, or the quantile by nearest rank (below ten devices: the worst)."""
        if self.outcome is not Outcome.OK:
            first = next(part for part in self.parts.values())
            failed = Measurement(first.artifact_sha256, self.outcome, None, message=self.message)
            return figures_of(failed, artifact, accuracy)
        return judged({name: figures_of(part, artifact, accuracy) for name, part in self.parts.items()}, self.judge)

    @property
    def chosen(self) -> Measurement:
        """The whole record of one device: the slowest of those that ended as the whole did."""
        alike = [part for part in self.parts.values() if part.outcome is self.outcome] or list(self.parts.values())
        return max(alike, key=lambda part: part.latency.percentile_ms["p50"] if part.latency else 0.0)


def judged(devices: Mapping[str, Figures], judge: str) -> dict[str, Figure]:
    """Each figure by nearest rank over the devices. What a device does not tell counts as worse than any value."""
    rank = math.ceil(JUDGES[judge] * len(devices) - 1e-9) - 1
    found: dict[str, Figure] = {}
    for name in {name: None for figures in devices.values() for name in figures}:
        entries = [
            (target, figures.get(name, Figure(None, missing="not measured"))) for target, figures in devices.items()
        ]
        missing = [f"{target}: {entry.missing}" for target, entry in entries if entry.value is None]
        known = [entry for _, entry in entries if entry.value is not None]
        values = sorted(entry.value for entry in known if entry.value is not None)
        if rank >= len(values):
            found[name] = Figure(None, missing="; ".join(missing))
            continue
        uppers = sorted(
            math.inf if entry.upper is None else entry.upper for _, entry in entries if entry.value is not None
        )
        found[name] = Figure(values[rank], uppers[rank] if math.isfinite(uppers[rank]) else None)
    return found


class Pool:
    """Devices of one kind as one; use it in a `with` statement. `check` raises where one is not fit to measure on.

    `relative` are the figures that are limited relative to the dense model's. Where a device falls out on which the
    dense model's figure rests, nothing compares any more, and measurements end LOST. Entering raises TargetError where
    no device is left, UsageError where they are not of one kind.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        *,
        judge: str = "worst",
        check: Callable[[Session], None] = lambda _: None,
        relative: frozenset[str] = frozenset(),
        progress: Progress = SILENT,
    ) -> None:
        self.sessions = list(sessions)
        self.left_out: dict[str, str] = {}
        self._judge = judge
        self._check = check
        self._relative = relative
        self._progress = progress
        self._dense: dict[str, Figures] = {}

    def __enter__(self) -> Pool:
        names = [session.target.name for session in self.sessions]
        if len(set(names)) < len(names):
            raise UsageError(f"a device is named twice: {', '.join(names)}", hint="name each device once")
        try:
            with self._progress.step(f"opening {len(self.sessions)} devices"):
                failures = self._each(self._open)
            for session, failure in failures.items():
                if failure is not None:
                    self._leave_out(session, failure.message, failure.outcome)
            self._check_kind()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in self.sessions:
            session.__exit__(None, None, None)

    @property
    def first(self) -> Session:
        """A device that is still there, for all."""
        return self.sessions[0]

    def known(self, devices: Mapping[str, Mapping[str, float | None]]) -> None:
        """What a run that is resumed measured of the dense model; devices that it does not know are left out."""
        self._dense = {
            target: {name: Figure(value) for name, value in figures.items()} for target, figures in devices.items()
        }
        for session in list(self.sessions):
            if session.target.name not in devices:
                session.__exit__(None, None, None)
                self._leave_out(session, "the run began without it", Outcome.LOST.value)

    def measure(self, artifact: Artifact) -> PoolMeasurement:
        """Measure one artifact on all devices; one that is lost twice is left out. Raises TargetError when all are."""
        if not self.sessions:
            raise self._none_left(Outcome.LOST.value)
        names = ", ".join(session.target.name for session in self.sessions)
        with self._progress.step(f"measuring on {names}"):
            found = self._each(lambda session: _measured(session, artifact))
        for session, part in found.items():
            if part.outcome is Outcome.LOST:
                session.__exit__(None, None, None)
                self._leave_out(session, part.message, part.outcome.value)
        parts = {session.target.name: part for session, part in found.items() if session in self.sessions}
        outcome, message = self._outcome(parts)
        pooled = PoolMeasurement(parts, self._judge, outcome, message)
        if outcome is Outcome.OK and not self._dense:  # the dense model is measured first
            self._dense = {name: figures_of(part, artifact, None) for name, part in parts.items()}
        return pooled

    def compare(self, artifact: Artifact, against: Artifact, *, workers: int, seconds: float) -> dict[str, Comparison]:
        """Run two artifacts in turn on all devices; by target. Failures are outcomes in the records."""
        with self._progress.step(f"comparing on {', '.join(session.target.name for session in self.sessions)}"):
            found = self._each(lambda session: session.compare(artifact, against, workers=workers, seconds=seconds))
        return {session.target.name: comparison for session, comparison in found.items()}

    def _outcome(self, parts: Mapping[str, Measurement]) -> tuple[Outcome, str]:
        if failed := [(name, part) for name, part in parts.items() if not part.outcome.is_result]:
            name, part = failed[0]
            return part.outcome, f"{name}: {part.message}"
        fitting = sum(part.outcome is Outcome.OK for part in parts.values())
        if fitting < math.ceil(JUDGES[self._judge] * len(parts) - 1e-9):
            return Outcome.OOM, "; ".join(f"{name}: {part.message}" for name, part in parts.items() if part.message)
        before = judged(self._dense, self._judge)
        now = judged({name: figures for name, figures in self._dense.items() if name in parts}, self._judge)
        for name in sorted(self._relative & before.keys()):
            if now.get(name, Figure(None)).value != before[name].value:
                return Outcome.LOST, (
                    f"the limit on {name} is relative to the dense model on a device that is left out "
                    f"({', '.join(self._dense.keys() - parts.keys())}): bring it back and go on with --resume, "
                    "or start a new run without it"
                )
        return Outcome.OK, ""

    def _open(self, session: Session) -> CannotMeasureError | None:
        try:
            session.__enter__()
        except CannotMeasureError as error:
            return error
        try:
            self._check(session)
        except CannotMeasureError as error:
            session.__exit__(None, None, None)
            return error
        return None

    def _leave_out(self, session: Session, why: str, outcome: str | None) -> None:
        name = session.target.name
        self.sessions.remove(session)
        self.left_out[name] = why
        self._progress.say(f"warning: {name} is left out: {why}")
        if not self.sessions:
            raise self._none_left(outcome)

    def _none_left(self, outcome: str | None) -> TargetError:
        return TargetError(
            "no device of the pool is left: " + "; ".join(f"{name}: {why}" for name, why in self.left_out.items()),
            hint="`edgeprune device check TARGET` says what is wrong with each",
            outcome=outcome,
        )

    def _check_kind(self) -> None:
        for session in self.sessions[1:]:
            if texts := differing(_kind(self.first), _kind(session)):
                raise UsageError(
                    f"{session.target.name} is of another kind than {self.first.target.name}: {'; '.join(texts)}",
                    hint="a pool is of devices of one kind: measure on the others in a run of their own",
                )

    def _each(self, work: Callable[[Session], T]) -> dict[Session, T]:
        """What `work` gives for every device, all at the same time; raises what one of them raised."""
        found: dict[Session, T] = {}
        errors: list[BaseException] = []

        def run(session: Session) -> None:
            try:
                found[session] = work(session)
            except BaseException as error:  # is raised below, in the thread that waits
                errors.append(error)

        threads = [threading.Thread(target=run, args=(session,), daemon=True) for session in self.sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return {session: found[session] for session in self.sessions}


def _measured(session: Session, artifact: Artifact) -> Measurement:
    """Once more where the link broke: what comes back is not left out."""
    part = session.measure(artifact)
    again = part.outcome is Outcome.LOST and session.connected
    return session.measure(artifact) if again else part


def _kind(session: Session) -> dict[str, Any]:
    runtime = session.policy.runtime
    version = (session.runtimes.get(runtime) or {}).get("version")
    return {**session.machine, "runtime": f"{runtime} {version}" if version else None}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Where two fingerprints are of devices of different kinds, in words."""
    found = [
        f"{name}: {other.get(name)!r}, not {one.get(name)!r}"
        for name in (*_KIND, "runtime")
        if one.get(name) != other.get(name)
    ]
    sizes = [float(machine.get("memory_bytes") or 0) for machine in (one, other)]
    if min(sizes) < max(sizes) * (1 - _MEMORY_SHARE):
        found.append(f"memory: {sizes[1] / 1e6:.0f} MB, not {sizes[0] / 1e6:.0f} MB")
    return found


class Quiet:
    """The progress of one device among others: what it says is kept, its steps are those of the pool."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        """One line, from any thread."""
        with self._lock:
            self._progress.say(message)

    def step(self, description: str, total: int | None = None) -> AbstractContextManager[Step]:
        """Nothing to draw."""
        return SILENT.step(description, total)
