"""Where the figures come from: device, runtime, conditions, versions, seeds, sums, warnings, drift."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.records.figures import format_figure
from edgeprune.records.trial import Trial
from edgeprune.report import measured_on
from edgeprune.report.html.markup import Child, Html, join, tag
from edgeprune.report.html.view import View, label, signed, title
from edgeprune.report.text import SECONDS

__all__ = ["measured_line", "provenance", "warnings"]

_MACHINE = ("board", "cpu", "cpus", "usable_cpus", "memory_bytes", "arch", "bits", "system", "kernel", "libc", "python")


def warnings(view: View) -> list[str]:
    """All that casts a doubt on the figures: of the measurements, of the device, of the folder."""
    where = view.result.provenance.get("measured_on")
    differences = where.get("differences", ()) if isinstance(where, Mapping) else ()
    profile = where.get("profile") if isinstance(where, Mapping) else None
    found = [f"The device is not as its profile {profile!r} says: {text}" for text in differences]
    for trial in view.compared:
        measured = view.measurements.get(trial.number)
        if measured is not None:
            found += [f"{title(view, trial)}: {text}" for text in measured.warnings]
    found += [text for text, drifted in _drift(view.result.provenance.get("dense_again")) if drifted]
    return [*found, *view.notes]


def _drift(again: Any) -> list[tuple[str, bool]]:
    """Every repeated measurement of the dense network in words, and whether it drifted."""
    lines: list[tuple[str, bool]] = []
    for number, targets in again.items() if isinstance(again, Mapping) else ():
        for target, entry in targets.items():
            where = f"The dense network again after trial {number}{f', on {target}' if target else ''}: "
            if "ratio" not in entry:
                lines.append((f"{where}{entry.get('outcome')}: {entry.get('message', '')}", False))
                continue
            first, now = (format_figure("latency.p50", entry[name]) for name in ("first_ms", "now_ms"))
            change, low, high = (signed((entry[key] - 1) * 100, 1) for key in ("ratio", "lower", "upper"))
            said = f"{where}p50 {first} at first, {now} then ({change} %, {low} % to {high} %)"
            lines.append((said + (": drifted" if entry.get("drifted") else ""), bool(entry.get("drifted"))))
    return lines


def provenance(view: View) -> Html:
    """Lists of names and values, by what they are about."""
    inputs = view.result.provenance.get("inputs")
    inputs = inputs if isinstance(inputs, Mapping) else {}
    sections: list[tuple[str, list[tuple[str, Child]]]] = [
        ("Device", _device(view)),
        ("Measurements", [entry for trial in view.compared for entry in _measurement(view, trial)]),
        ("Run", _run(view, inputs)),
        ("Versions", [(name, str(value)) for name, value in _table(inputs.get("versions")).items()]),
        ("SHA-256", _sums(view, inputs)),
    ]
    drift = _drift(view.result.provenance.get("dense_again"))
    shown = [tag("section", tag("h3", name), _listed(entries), class_="facts") for name, entries in sections if entries]
    repeated = [tag("h3", "Drift"), tag("ul", [tag("li", text) for text, _ in drift])] if drift else []
    return join(tag("div", shown, class_="columns"), repeated, _pool(view))


def _listed(entries: list[tuple[str, Child]]) -> Html:
    return tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in entries])


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _device(view: View) -> list[tuple[str, Child]]:
    where = _table(view.result.provenance.get("measured_on"))
    machine = {
        **_table(view.result.provenance.get("machine")),
        **{k: v for k, v in where.items() if v not in (None, "")},
    }
    entries: list[tuple[str, Child]] = [(name, str(where[name])) for name in ("target", "profile") if where.get(name)]
    for name in _MACHINE:
        value = machine.get(name)
        if value not in (None, ""):
            text = format_figure("size", float(value)) if name == "memory_bytes" else str(value)
            entries.append((name.removesuffix("_bytes").replace("_", " "), text))
    runtime = where.get("runtime")
    if runtime:
        entries.append(("runtime", f"{runtime} {where.get('runtime_version') or 'of unknown version'}"))
        entries.append(("threads", str(where.get("threads"))))
    return entries


def _measurement(view: View, trial: Trial) -> list[tuple[str, Child]]:
    """When, with what, and how the device was before it."""
    measured = view.measurements.get(trial.number)
    if measured is None:
        return []
    name = title(view, trial)
    entries: list[tuple[str, Child]] = []
    if measured.provenance is not None:
        began = measured.provenance
        took = (
            f"{began.started_at.replace('T', ' ').replace('+00:00', ' UTC')}, {measured.seconds:.0f} s, {began.clock}"
        )
        entries.append((f"{name}, begun", took))
    if measured.latency is not None:
        entries.append(
            (f"{name}, runs", f"{measured.latency.samples:,} after {measured.latency.warmup_runs:,} to warm up")
        )
    before = _table(measured.conditions.get("before"))
    load = before.get("load")
    if isinstance(load, (list, tuple)) and load:
        entries.append((f"{name}, load before", " ".join(map(_number, load))))
    for key, text in (("temperature_c", "°C before"), ("governor", "governor"), ("throttled", "throttled")):
        value = before.get(key)
        if value:
            told = (
                ", ".join(f"{k} {_number(v)}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
            )
            entries.append((f"{name}, {text}", told))
    return entries


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _run(view: View, inputs: Mapping[str, Any]) -> list[tuple[str, Child]]:
    result = view.result
    search, recovery = _table(inputs.get("search")), _table(inputs.get("recovery"))
    entries: list[tuple[str, Child]] = [
        ("task", str(_table(inputs.get("task")).get("name", "not known"))),
        ("strategy", result.strategy or "not known"),
        ("seed", str(result.seed)),
        ("trials", str(result.trials)),
        ("work", f"{result.seconds:.0f} s {SECONDS}"),
    ]
    entries += [
        (name.replace("_", " "), _plain(value)) for name, value in search.items() if name not in ("seed", "strategy")
    ]
    return entries + [(f"recovery: {name.replace('_', ' ')}", _plain(value)) for name, value in recovery.items()]


def _plain(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "not set"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _sums(view: View, inputs: Mapping[str, Any]) -> list[tuple[str, Child]]:
    entries = [("dense network", inputs.get("model"))]
    entries += list(_table(view.result.dense.details.get("sources")).items())
    dense = view.measurements.get(view.result.dense.number)
    entries.append(("dense file", dense.artifact_sha256 if dense is not None else None))
    best = view.measurements.get(view.best.number) if view.best is not None else None
    name = "accepted file" if view.accepted else "closest file"
    entries.append((name, view.artifact_sha256 or (best.artifact_sha256 if best is not None else None)))
    if dense is not None and dense.provenance is not None:
        entries.append(("agent on the device", dense.provenance.agent_sha256))
    return [(text, tag("code", str(value), class_="sum")) for text, value in entries if value]


def _pool(view: View) -> Html | None:
    """Of a pool, what each device had; the figures of the result are those that were judged."""
    last = view.result.best or view.result.dense
    pool = last.details.get("pool")
    if not isinstance(pool, Mapping):
        return None
    devices = _table(pool.get("devices"))
    names = list(
        dict.fromkeys(name for values in devices.values() for name, value in values.items() if value is not None)
    )
    rows = [
        tag(
            "tr",
            tag("th", target, scope="row"),
            [tag("td", _device_figure(values, name), class_="number") for name in names],
        )
        for target, values in devices.items()
    ]
    head = tag("tr", tag("th", "device", scope="col"), [tag("th", label(name), scope="col") for name in names])
    judged = f"Devices of the pool, judged by {pool.get('judge')} (trial {last.number})"
    table = tag("table", tag("thead", head), tag("tbody", rows), class_="small")
    return join(tag("h3", judged), tag("div", table, class_="scroll", role="region", aria_label=judged, tabindex=0))


def _device_figure(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return "–" if value is None else format_figure(name, value)


def measured_line(view: View) -> str:
    """What the figures are of, in a line; "" where it is not known."""
    where = view.result.provenance.get("measured_on")
    return measured_on.of_run(where)[0] if isinstance(where, Mapping) else ""
