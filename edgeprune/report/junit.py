"""A gate as JUnit XML, as CI services show it: a test case per limit, and one for the measurement itself.

What is violated is a failure, what is not known an error, a warning is marked as skipped with its text. The elements
and their order are those of the schema that Jenkins' xUnit plug-in publishes (junit-10.xsd), which others read as well.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from edgeprune.records.budget import State
from edgeprune.records.gate import NOT_MEASURED, Gate, GateCheck
from edgeprune.report.gate import message, on, title, when

__all__ = ["render"]

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(gate: Gate) -> bytes:
    """The document, in UTF-8."""
    suite = ET.Element("testsuite")
    _properties(suite, gate)
    cases = [_measurement(gate), *(_case(check) for check in gate.checks)]
    suite.extend(cases)
    output = ET.SubElement(suite, "system-out")
    output.text = _text("\n".join([title(gate), *gate.notes, *gate.reading.origin.warnings]))
    counts = {
        "tests": len(cases),
        "failures": sum(case.find("failure") is not None for case in cases),
        "errors": sum(case.find("error") is not None for case in cases),
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    for name, value in {"name": gate.reading.name, **counts, "skipped": skipped, "time": 0}.items():
        suite.set(name, _text(str(value)))
    if gate.reading.origin.started_at:
        suite.set("timestamp", _text(gate.reading.origin.started_at[:19]))  # without an offset: it is UTC
    root = ET.Element("testsuites", {"name": "edgeprune check", **{name: str(n) for name, n in counts.items()}})
    root.append(suite)
    ET.indent(root)
    text: str = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _properties(suite: ET.Element, gate: Gate) -> None:
    origin = gate.reading.origin
    facts = {
        "artifact": gate.reading.file,
        "sha256": gate.reading.sha256,
        "source": when(origin),
        "target": ", ".join(origin.targets),
        "profile": origin.profile,
        "measured on": on(origin).removeprefix("measured on: ") if origin.device else "",
        "baseline sha256": "" if gate.baseline is None else gate.baseline.sha256,
    }
    properties = ET.SubElement(suite, "properties")
    for name, value in facts.items():
        if value:
            ET.SubElement(properties, "property", {"name": name, "value": _text(value)})


def _measurement(gate: Gate) -> ET.Element:
    """Whether there is a measurement at all, and whether the device could run the model."""
    origin = gate.reading.origin
    name = f"{origin.source} on {', '.join(origin.targets)}" if origin.targets else origin.source
    case = ET.Element("testcase", {"classname": "edgeprune.measurement", "name": _text(name), "time": "0"})
    if origin.outcome != "OK":
        text = _text(f"{origin.message}; {origin.hint}" if origin.hint else origin.message)
        if origin.outcome == NOT_MEASURED:
            ET.SubElement(case, "skipped").text = text
            return case
        tag = "failure" if gate.is_measured else "error"
        ET.SubElement(case, tag, {"type": _text(origin.outcome), "message": text}).text = text
    return case


def _case(check: GateCheck) -> ET.Element:
    limit = check.entry.limit
    name = _text(f"{check.name} {limit.text}" + (" (warning)" if check.level == "warn" else ""))
    case = ET.Element("testcase", {"classname": f"edgeprune.{check.kind}", "name": name, "time": "0"})
    text = _text(message(check))
    if check.is_met:
        ET.SubElement(case, "system-out").text = text
    elif not check.fails:
        ET.SubElement(case, "skipped").text = f"warning: {text}"
    else:
        tag = "failure" if check.entry.state is State.VIOLATED else "error"
        ET.SubElement(case, tag, {"type": check.entry.state.value, "message": text}).text = text
    return case


def _text(text: str) -> str:
    """The text without what XML cannot hold: a device may say anything."""
    return _NOT_XML.sub("\ufffd", text)
