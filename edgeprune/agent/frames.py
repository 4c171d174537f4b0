"""What an agent may say: the shape of every frame, checked in one place before anything is made of it.

The device is not trusted: a number that is not finite, a sample below 1 ns, a missing or a wrong field is refused by
its name. Text is kept without control characters, so that none reaches a terminal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from edgeprune.records.measurement import Outcome

__all__ = ["FrameError", "check", "parse"]

_DEPTH = 12
_TEXT = 2000  # characters of a message that are kept
_CONTROL = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}

Check = Callable[[Any, str], None]


class FrameError(Exception):
    """A line is no frame, or a frame is not what the protocol says."""


def parse(line: bytes) -> dict[str, Any]:
    """The object on a line, of finite numbers and plain text; raises FrameError."""
    try:
        found = json.loads(line, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"garbled: {line[:80]!r}") from error
    if not isinstance(found, dict):
        raise FrameError(f"garbled: {line[:80]!r}")
    plain: dict[str, Any] = _plain(found, 0)
    return plain


def check(frame: Mapping[str, Any], request: str = "", asked: Mapping[str, Any] | None = None) -> None:
    """Refuse a frame of an unknown kind or a wrong shape. Raises FrameError.

    `request` is what a result answers, `asked` with what parameters.
    """
    kind = frame.get("type")
    shape = _KINDS.get(kind) if isinstance(kind, str) else None
    if shape is None:
        raise FrameError(f"unknown frame {str(kind)[:80]!r}; known: {', '.join(_KINDS)}")
    shape(frame, str(kind))
    if kind == "power" and len(frame["ns"]) != len(frame["values"]):
        raise FrameError(f"power: {len(frame['ns'])} times for {len(frame['values'])} values")
    if kind != "result" or request not in _RESULTS:
        return
    where = f"result of {request}"
    if request != "probe" and frame.get("outcome") != Outcome.OK.value:
        _FAILED(frame, where)
        return
    _RESULTS[request](frame, where)
    plan = ((asked or {}).get("policy") or {}).get("energy")
    if request == "measure" and plan:
        _energy(_object(frame.get("energy"), f"{where}.energy"), len(plan["sensors"]), f"{where}.energy")


def _energy(told: Mapping[str, Any], sensors: int, where: str) -> None:
    """An energy pass that was asked for gives a reason or all that a figure is made of."""
    if told.get("missing"):
        return
    _PHASES(told, where)
    if sensors:
        _SENSED(told, where)
        if told["sensor"] >= sensors:
            raise FrameError(f"{where}: sensor {told['sensor']} of {sensors}")


def _not_a_number(text: str) -> NoReturn:
    raise ValueError(text)


def _plain(value: Any, depth: int) -> Any:
    if depth > _DEPTH:
        raise FrameError("nested too deeply")
    if isinstance(value, str):
        return value.translate(_CONTROL)
    if isinstance(value, list):
        return [_plain(entry, depth + 1) for entry in value]
    if isinstance(value, dict):
        return {_plain(name, depth): _plain(entry, depth + 1) for name, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise FrameError("a number that is not finite")
    if isinstance(value, int) and abs(value) >= 1 << 63:
        raise FrameError("a number of more than 63 bits")
    return value


# --- shapes, made of small checks


def _number(low: float = -math.inf, *, whole: bool = False) -> Check:
    kinds = (int,) if whole else (int, float)

    def is_number(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= low:
            kind = "a whole number" if whole else "a number"
            least = f" from {low:g}" if math.isfinite(low) else ""
            raise FrameError(f"{where}: {str(value)[:80]!r} is not {kind}{least}")

    return is_number


def _of(kind: type, name: str) -> Check:
    def is_kind(value: Any, where: str) -> None:
        if not isinstance(value, kind):
            raise FrameError(f"{where}: {str(value)[:80]!r} is not {name}")

    return is_kind


def _message(value: Any, where: str) -> None:
    _text(value, where)
    if len(value) > 4 * _TEXT:
        raise FrameError(f"{where}: a text of {len(value)} characters")


def _maybe(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Check, least: int = 0, most: float = math.inf) -> Check:
    def is_list(value: Any, where: str) -> None:
        if not isinstance(value, list) or not least <= len(value) <= most:
            raise FrameError(f"{where}: {str(value)[:80]!r} is not a list of the right length")
        for entry in value:
            check(entry, where)

    return is_list


def _table(check: Check) -> Check:
    def is_table(value: Any, where: str) -> None:
        for name, entry in _object(value, where).items():
            check(entry, f"{where}.{name[:80]}")

    return is_table


def _record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    def is_record(value: Any, where: str) -> None:
        _object(value, where)
        for name, check in required.items():
            if name not in value:
                raise FrameError(f"{where}: {name!r} is missing")
            check(value[name], f"{where}.{name}")
        for name, check in (optional or {}).items():
            if value.get(name) is not None:
                check(value[name], f"{where}.{name}")

    return is_record


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FrameError(f"{where}: {str(value)[:80]!r} is not an object")
    return value


def _outcome(value: Any, where: str) -> None:
    if value not in [outcome.value for outcome in Outcome]:
        raise FrameError(f"{where}: {str(value)[:80]!r} is no outcome")


_text, _flag = _of(str, "text"), _of(bool, "true or false")
_any, _finite, _positive = _number(), _number(0), _number(1e-9)
_count, _whole, _ns = _number(0, whole=True), _number(whole=True), _number(1, whole=True)
_pair = _list(_whole, 2, 2)

_STATE = _record(
    {},
    {
        "load": _list(_finite, 1),
        "governor": _list(_text),
        "swap_used_bytes": _whole,
        "memory_available_bytes": _count,
        "temperature_c": _table(_any),
        "frequency_khz": _table(_count),
        "cooling": _table(_count),
        "throttled": _count,
    },
)
_CONDITIONS = _record(
    {},
    {
        "before": _STATE,
        "after": _STATE,
        "during": _record({}, {"clock_share": _finite, "hottest_c": _any}),
        "hot_start": _text,
        "throttled_attempts": _list(_message),
    },
)
_MACHINE = _record(
    {},
    {
        **dict.fromkeys(("hostname", "system", "kernel", "arch", "libc", "python", "boot_id", "board", "cpu"), _text),
        **dict.fromkeys(("bits", "cpus", "usable_cpus", "memory_bytes"), _ns),
    },
)
_PEAK = _record({"resident": _count, "peak": _count}, dict.fromkeys(("anonymous", "swapped", "file"), _whole))
_SAMPLED = _record({}, dict.fromkeys(("resident", "peak", "anonymous", "swapped", "file"), _whole))
_WORKER = {
    **dict.fromkeys(("idle", "base", "loaded", "ran"), _PEAK),
    "sampled": _SAMPLED,
    "reset": _flag,
    "rounding": _count,
    "peak": _count,
    "inference": _maybe(_whole),
}
_PHASES = _record({"before": _pair, "after": _pair, "marks": _list(_pair, 2)})
_SENSED = _record({"sensor": _count, "quantity": _text, "interval_s": _positive, "failed": _table(_count)})
_TRACE = _record({"at_s": _any, "throttled": _text}, {"temperature_c": _any, "frequency_khz": _count})

_MEASURED = _record(
    {
        "outcome": _outcome,
        "latency": _record(
            {
                "runtime": _text,
                "version": _text,
                "runs": _ns,
                "warmup_runs": _count,
                "converged": _flag,
            },
            {"warm": _flag, "cores": _list(_count)},
        ),
    },
    {
        "memory": _list(
            _record(
                {**_WORKER, "idle_worker": _record(_WORKER)},
                {"nvmap": _record({"growth": _whole, "scope": _text})},
            )
        ),
        "missing": _table(_message),
        "energy": _record({}, {"missing": _message, "rails": _list(_text)}),
        "trace": _list(_TRACE),
        "pass_s": _finite,
        "conditions": _CONDITIONS,
    },
)
_COMPARED = _record(
    {
        "outcome": _outcome,
        "workers": _list(_record({"pairs": _list(_list(_positive, 2, 2), 1)}), 2),
    },
    {"conditions": _CONDITIONS},
)
_OUTPUT = _record({"name": _text, "dtype": _text, "shape": _list(_count), "sha256": _text, "data": _maybe(_text)})
_SHAPES = _list(_list(_whole))
_NODE = _record(
    {
        **dict.fromkeys(("name", "op_type", "provider"), _message),
        **dict.fromkeys(("ns", "runs"), _ns),
        **dict.fromkeys(("inputs", "outputs"), _SHAPES),
    }
)
_TIMED = _record({"key": _message, "number": _count, "p50_ns": _ns, "p25_ns": _ns, "runs": _ns}, {"kernel_ns": _ns})
_UNTIMED = _record({"key": _message, "number": _count, "error": _message})
_FAILED = _record({"outcome": _outcome}, {"message": _message, "conditions": _CONDITIONS})

_RESULTS: Mapping[str, Check] = {
    "probe": _record({"machine": _MACHINE, "conditions": _STATE}),
    "measure": _MEASURED,
    "compare": _COMPARED,
    "cached": _record({"outcome": _outcome, "found": _flag, "keep": _flag}),
    "profile": _record(
        {
            "outcome": _outcome,
            **dict.fromkeys(("runtime", "version"), _text),
            "nodes": _count,
            **dict.fromkeys(("runs", "profiled_ns", "plain_ns"), _ns),
        },
        {"conditions": _CONDITIONS, "cores": _list(_count)},
    ),
    "operators": _record(
        {"outcome": _outcome, "runtime": _text, "version": _text, "models": _count, "failed": _count},
        {"conditions": _CONDITIONS, "cores": _list(_count)},
    ),
    "outputs": _record({"outcome": _outcome, "outputs": _list(_OUTPUT)}),
}
_HOLDER = _record({}, {"holder": _record({}, {"owner": _message, "pid": _count})})
_KINDS: Mapping[str, Check] = {
    "hello": _record(
        {"machine": _MACHINE},
        {
            "runtimes": _table(_record({}, {"version": _text, "missing": _message, "outcome": _outcome})),
            "requests": _list(_text),
            "sha256": _text,
        },
    ),
    "busy": _HOLDER,
    "waiting": _HOLDER,
    "heartbeat": _record({}, {"stage": _message, "elapsed_s": _finite}),
    "samples": _record({"ns": _list(_ns)}),
    "power": _record({"ns": _list(_whole), "values": _list(_any)}),
    "clock": _record({"ns": _whole}),
    "node": _NODE,
    "timing": lambda value, where: (_UNTIMED if "error" in value else _TIMED)(value, where),
    "error": _record({"message": _message}),
    "result": _record({}),
}
