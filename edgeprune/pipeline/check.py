"""`edgeprune check`: is a model within its budget, and not worse than a baseline? Measured now, or as it was recorded.

An attempt to measure that fails is a finding with its reason, and passes nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from edgeprune.errors import StorageError, UsageError
from edgeprune.pipeline.check_measuring import measured
from edgeprune.pipeline.subject import Subject, recorded
from edgeprune.progress import SILENT, Progress
from edgeprune.records import gate as gates
from edgeprune.records.budget import LimitCheck, State
from edgeprune.records.figures import Figure, Figures
from edgeprune.records.gate import Gate, GateCheck, Reading
from edgeprune.records.gate_policy import LEVELS, Policy
from edgeprune.records.project import DeviceSettings
from edgeprune.report.gate import since

__all__ = ["check", "device_of_run", "judge", "read_baseline"]


def check(
    subject: Subject,
    policy: Policy,
    *,
    device: DeviceSettings | None,
    baseline: Reading | None = None,
    max_age_s: float | None = None,
    progress: Progress = SILENT,
    now: datetime | None = None,
) -> Gate:
    """Judge a subject's figures, measured now on `device`, or (None) as they were recorded, at most `max_age_s` ago.

    Where a limit is relative to the dense model, that is measured as well. Raises UsageError where nothing is limited,
    or target, profile or files are not usable; StorageError where a file cannot be read.
    """
    if not policy.limits:
        raise UsageError(
            "there is nothing to check: no limit is given",
            hint="give --budget FILE, or limits like --max-latency 30ms",
        )
    if subject.result is None and policy.is_of_dense:
        raise UsageError(
            f"a limit is relative to the dense model, which {subject.name} does not know",
            hint="name the run in place of the file, or give absolute limits",
        )
    notes = []
    if subject.result is not None and subject.result.status != "accepted":
        notes.append(f"the run accepted nothing ({subject.result.status}); this is its closest network")
    if device is None:
        reading, dense = recorded(subject, now), dict(subject.dense)
        reading = _not_older(reading, max_age_s)
    else:
        reading, dense = measured(subject, policy, device, progress)
        if subject.accuracy is not None and any(limit.is_accuracy for limit in policy.limits):
            notes.append("the accuracy is as the run evaluated it")
    if baseline is None and any(part.limits for part in policy.regression.values()):
        notes.append("regressions were not checked: there is no --baseline")
    return judge(reading, dense, policy, baseline=baseline, notes=tuple(notes))


def judge(
    reading: Reading, dense: Figures, policy: Policy, *, baseline: Reading | None = None, notes: tuple[str, ...] = ()
) -> Gate:
    """Every limit against the upper confidence bounds of the figures, and against those of the baseline."""
    checks = [
        GateCheck("budget", level, entry, _value(dense, entry) if _is_relative(entry) else None)
        for level in LEVELS
        for entry in policy.budget[level].check(reading.figures, dense).limits
    ]
    if baseline is not None:
        unlike = _unlike(reading, baseline)
        checks += [
            GateCheck("regression", level, _against(entry, baseline, unlike), _value(baseline.figures, entry))
            for level in LEVELS
            for entry in policy.regression[level].check(reading.figures, baseline.figures).limits
        ]
    return Gate(reading, tuple(checks), dense=dense, baseline=baseline, notes=notes)


def read_baseline(path: Path) -> Reading:
    """What `check --json` wrote there; raises UsageError."""
    hint = "write it with: edgeprune check RUN --json > main.json"
    try:
        return gates.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UsageError(f"there is no baseline {path}", hint=hint) from error
    except StorageError as error:
        raise UsageError(f"{path}: {error.message}", hint=error.hint or hint) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", hint=hint) from error


def device_of_run(subject: Subject) -> DeviceSettings:
    """The device that the run was measured on; this machine for a file."""
    if subject.result is None:
        return DeviceSettings()
    asked = subject.result.provenance.get("inputs", {}).get("device", {})
    default = DeviceSettings()
    return DeviceSettings(
        profile=str(asked.get("profile", default.profile)),
        target=str(asked.get("target", default.target)),
        targets=tuple(asked.get("targets", ())),
        judge=str(asked.get("judge", default.judge)),
    )


def _not_older(reading: Reading, max_age_s: float | None) -> Reading:
    """The reading; too old, its device's figures count as missing."""
    age_s = reading.origin.age_s
    if max_age_s is None or (age_s is not None and 0 <= age_s <= max_age_s):
        return reading
    if not reading.origin.device and age_s is None:
        return reading  # there is no measurement at all, which is said already
    when = "at an unknown time" if age_s is None else since(age_s)
    reason = f"it was measured {when}, and --max-age allows {since(max_age_s).removesuffix(' ago')}"
    stays = ("accuracy", "size")
    figures = {
        name: figure if name in stays else Figure(None, missing=reason) for name, figure in reading.figures.items()
    }
    return replace(reading, figures=figures, origin=replace(reading.origin, outcome="TOO_OLD", message=reason))


def _is_relative(entry: LimitCheck) -> bool:
    return entry.limit.relative or entry.limit.drop is not None


def _value(figures: Figures, entry: LimitCheck) -> float | None:
    figure = figures.get(entry.limit.figure)
    return None if figure is None else figure.value


def _unlike(reading: Reading, baseline: Reading) -> str:
    """Why figures of the two devices do not compare; empty where they do."""
    if not reading.origin.device:
        return ""  # there are no figures to compare
    if not baseline.origin.device:
        return "the baseline does not say what it was measured on"
    differing = [
        f"{name.replace('_', ' ')} was {baseline.origin.device.get(name)!r}, is {value!r}"
        for name, value in reading.origin.device.items()
        if baseline.origin.device.get(name) != value
    ]
    return f"the baseline was measured on another device: {'; '.join(differing)}" if differing else ""


def _against(entry: LimitCheck, baseline: Reading, unlike: str) -> LimitCheck:
    """The check of a regression, which compares nothing of different devices, and nothing with what is missing."""
    name = entry.limit.figure
    if unlike and name not in ("size", "accuracy"):
        return replace(entry, state=State.UNKNOWN, bound=None, headroom=None, reason=unlike)
    if entry.bound is None and entry.value is not None:
        reference = baseline.figures.get(name)
        return replace(entry, reason=_no_reference(reference))
    return entry


def _no_reference(reference: Figure | None) -> str:
    """Why nothing can be relative to the baseline's figure."""
    if reference is None or reference.value is None:
        why = f": {reference.missing}" if reference is not None and reference.missing else ""
        return f"the baseline's figure is missing{why}"
    what = "was only estimated" if reference.kind != "measured" else f"is {reference.value:g}"
    return f"no share can be taken of the baseline's figure, which {what}"
