"""`edgeprune device check`: can this device be measured on, and what would make its figures better? With each fix."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgeprune.errors import CannotMeasureError, TargetError
from edgeprune.progress import SILENT, Progress

if TYPE_CHECKING:
    from edgeprune.agent.bootstrap import Bootstrap
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import DeviceProfile
    from edgeprune.targets.base import Target

__all__ = ["Finding", "check", "check_session", "refuse_unhealthy"]

_NO_SPACE_BYTES = 16 << 20
_LITTLE_SPACE_BYTES = 128 << 20
_HOT_C = 80.0
_CLOCK_S = 120.0
_LOAD_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `failed` means that nothing can be measured; `fix` says what to do.

    `absent` is not there and not needed: the fix brings it.
    """

    name: str
    state: Literal["ok", "warning", "failed", "absent"]
    message: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def check(
    target: Target | str,
    *,
    profile: DeviceProfile | str | Path = "host",
    progress: Progress = SILENT,
    **options: Any,
) -> tuple[Finding, ...]:
    """Look at a device: link, lock, runtime, space, clock, heat, swap, load. A device out of reach is a finding, too.

    Raises UsageError where target or profile are not usable.
    """
    from edgeprune.measure.session import Session
    from edgeprune.records.profile import load_profile
    from edgeprune.targets.parse import open_target

    kind = load_profile(profile) if isinstance(profile, (str, Path)) else profile
    device = open_target(target, **options) if isinstance(target, str) else target
    try:
        with Session(device, kind, progress=progress, wait_s=0) as session:
            return check_session(session)
    except TargetError as error:
        if error.outcome == "BUSY":
            reached = Finding("reachable", "ok", f"{device.name} answers")
            return reached, Finding("lock", "failed", error.message, error.hint or "")
        return (Finding("reachable", "failed", error.message, error.hint or ""),)


def check_session(session: Session) -> tuple[Finding, ...]:
    """The same of a device that a session is open with. Raises TargetError where the link breaks."""
    from edgeprune.agent.bootstrap import Bootstrap

    where = session.target.name
    bootstrap = Bootstrap(session.target)
    asked = time.time()
    facts = bootstrap.facts()
    answered = time.time()
    conditions = session.probe()["conditions"]
    return (
        Finding("reachable", "ok", f"{where} answers, {facts['interpreter']} is Python {_dotted(facts['python'])}"),
        Finding("lock", "ok", "nobody else measures on it"),
        _runtime(session, bootstrap),
        _space(facts),
        _clock(float(facts["time"]), asked, answered),
        _heat(conditions),
        *_swap(conditions),
        _load(conditions, int(session.machine.get("usable_cpus") or 1)),
        *_governor(conditions),
    )


def refuse_unhealthy(session: Session, progress: Progress = SILENT) -> None:
    """Say the warnings of a check; raise TargetError with what fails, and its fix."""
    with progress.step(f"checking {session.target.name}"):
        findings = check_session(session)
    for finding in findings:
        if finding.state == "warning":
            progress.say(f"warning: {session.target.name}: {finding.message} ({finding.fix})")
    failed = [finding for finding in findings if finding.state == "failed"]
    if failed:
        outcomes = {"runtime": "NO_RUNTIME", "space": "NO_SPACE", "heat": "THROTTLED"}
        raise TargetError(
            "; ".join(finding.message for finding in failed),
            hint="; ".join(finding.fix for finding in failed if finding.fix),
            outcome=outcomes[failed[0].name],
        )


def _runtime(session: Session, bootstrap: Bootstrap) -> Finding:
    from edgeprune.pipeline.golden import run_golden
    from edgeprune.pipeline.runtimes import missing_runtime_hint

    where, wanted = session.target.name, session.policy.runtime
    fix = missing_runtime_hint(where, wanted)
    if wanted != "onnxruntime":
        found = session.runtimes.get(wanted, {})
        if "version" in found:
            return Finding("runtime", "ok", f"{wanted} {found['version']} is there; its results were not tried")
        return Finding("runtime", "failed", f"{where}: {found.get('missing', f'{wanted} is missing')}", fix)
    try:
        answer, error = run_golden(bootstrap, where)
    except CannotMeasureError as failure:
        if failure.outcome in {"LOST", "TIMEOUT"}:
            raise
        return Finding("runtime", "failed", failure.message, failure.hint or fix)
    said = f"ONNX Runtime {answer['version']} computes a test network right (error {error:.1e})"
    return Finding("runtime", "ok", said)


def _space(facts: Mapping[str, Any]) -> Finding:
    free = min(int(facts["free_bytes"]), int(facts["folder_free_bytes"]))
    said = (
        f"{int(facts['free_bytes']) / 1e6:.0f} MB free in the home folder, "
        f"{int(facts['folder_free_bytes']) / 1e6:.0f} MB for temporary files"
    )
    if free < _LITTLE_SPACE_BYTES:
        fix = "free some space there, or set TMPDIR for that user to a folder that has it"
        return Finding("space", "failed" if free < _NO_SPACE_BYTES else "warning", f"only {said}", fix)
    return Finding("space", "ok", said)


def _clock(there: float, asked: float, answered: float) -> Finding:
    off = there - (asked + answered) / 2
    if abs(off) - (answered - asked) / 2 > _CLOCK_S:
        return Finding(
            "clock",
            "warning",
            f"its clock is {abs(off):.0f} s {'ahead' if off > 0 else 'behind'}; measurements do not depend on it",
            "set it: sudo timedatectl set-ntp true",
        )
    return Finding("clock", "ok", "its clock agrees with this machine's")


def _heat(conditions: Mapping[str, Any]) -> Finding:
    fix = "let it cool down, or give it a heat sink, a fan, a better power supply"
    throttled = conditions.get("throttled")
    if throttled is not None and throttled & 0xF:
        return Finding("heat", "failed", f"the firmware throttles it now (get_throttled={throttled:#x})", fix)
    active = [name for name, state in (conditions.get("cooling") or {}).items() if state]
    if active:
        return Finding("heat", "failed", f"the kernel slows the processor to cool it ({', '.join(active)})", fix)
    degrees = list((conditions.get("temperature_c") or {}).values())
    if not degrees:
        return Finding("heat", "ok", "it shows no temperature, and no sign of throttling")
    state: Literal["ok", "warning"] = "warning" if max(degrees) >= _HOT_C else "ok"
    return Finding("heat", state, f"{max(degrees):.0f} °C, not throttled", fix if state == "warning" else "")


def _swap(conditions: Mapping[str, Any]) -> Iterator[Finding]:
    used = conditions.get("swap_used_bytes")
    if used is None:
        return
    if used > 1 << 20:
        fix = "end other programs, or turn swap off while measuring: sudo swapoff -a"
        yield Finding("swap", "warning", f"{used / 1e6:.0f} MB are swapped out: memory is short", fix)
    else:
        yield Finding("swap", "ok", "nothing is swapped out")


def _load(conditions: Mapping[str, Any], cpus: int) -> Finding:
    load = (conditions.get("load") or [0.0])[0]
    if load > _LOAD_SHARE * cpus:
        fix = "end what runs there beside the measurement"
        return Finding("load", "warning", f"load {load:.2f} on {cpus} processors: something else runs there", fix)
    return Finding("load", "ok", f"load {load:.2f} on {cpus} processors")


def _governor(conditions: Mapping[str, Any]) -> Iterator[Finding]:
    governors = conditions.get("governor") or []
    if not governors:
        return
    slow = [name for name in governors if name in {"powersave", "ondemand", "conservative"}]
    if slow:
        fix = "steadier figures: echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
        yield Finding("governor", "warning", f"the processor's clock is not held ({', '.join(slow)})", fix)
    else:
        yield Finding("governor", "ok", ", ".join(governors))


def _dotted(version: Any) -> str:
    return ".".join(str(part) for part in version)
