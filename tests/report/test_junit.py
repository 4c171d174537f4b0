"""JUnit XML: valid, with a failure per limit that is exceeded and an error per limit that is not known."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune.records.gate import NOT_MEASURED, Gate, Origin
from edgeprune.report import junit
from tests.gates import ORIGIN, gate, reading

SCHEMA = Path(__file__).with_name("junit.xsd")
RED = gate(
    {"latency": {"p95": "19ms"}, "energy": "1mJ", "accuracy": {"max_drop": "1pp"}},
    {"size": "3MB"},
    {"size": "+1%"},
    baseline=reading(),
)
AWAY = gate(
    {"latency": {"p95": "19ms"}, "size": "5MB"},
    now=reading({}, origin=Origin("measured", "LOST", "no route", "try again")),
)
HOSTILE = gate(
    {"size": "5MB"},
    now=reading(
        name="a & <b> \"c\" 'd' ]]> \x1b[31m \ud800",
        origin=replace(ORIGIN, outcome="CRASHED", message="<script>\x00</script>", warnings=("\x07 & \ufffe",)),
    ),
)


def parsed(found: Gate) -> ET.Element:
    suite = ET.fromstring(junit.render(found)).find("testsuite")
    assert suite is not None
    return suite


@pytest.mark.parametrize("found", [RED, AWAY, HOSTILE], ids=["red", "away", "hostile"])
def test_it_is_valid(found: Gate, tmp_path: Path) -> None:
    xmllint = shutil.which("xmllint")
    if xmllint is None:
        pytest.skip("xmllint (Debian: libxml2-utils) is not installed")
    path = tmp_path / "gate.xml"
    path.write_bytes(junit.render(found))
    checked = subprocess.run(
        [xmllint, "--nonet", "--noout", "--schema", SCHEMA, path], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_every_limit_is_a_case() -> None:
    suite = parsed(RED)
    assert [
        (case.get("classname"), case.get("name"), [child.tag for child in case]) for case in suite.iter("testcase")
    ] == [
        ("edgeprune.measurement", "measured on ssh://pi@camera", []),
        ("edgeprune.budget", "latency.p95 19ms", ["failure"]),
        ("edgeprune.budget", "energy 1mJ", ["error"]),
        ("edgeprune.budget", "accuracy.max_drop 1pp", ["system-out"]),
        ("edgeprune.budget", "size 3MB (warning)", ["skipped"]),
        ("edgeprune.regression", "size +1%", ["system-out"]),
    ]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "6",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }


def test_a_failure_names_metric_limit_value_and_headroom() -> None:
    failure = parsed(RED).find(".//failure")
    assert failure is not None
    assert failure.get("message") == (
        "latency.p95 19ms: 20.000 ms (up to 21.000 ms) is over 19.000 ms, headroom -10.5 %"
    )
    error = parsed(RED).find(".//error")
    assert error is not None
    assert error.get("message") == "energy 1mJ: unknown: no power sensor"
    skipped = parsed(RED).findtext(".//skipped")
    assert skipped == "warning: size 3MB: 4.00 MB is over 3.00 MB, headroom -33.3 %"


def test_a_device_that_is_away_is_an_error_of_the_measurement() -> None:
    case = parsed(AWAY).find("testcase")
    assert case is not None
    assert case.get("classname") == "edgeprune.measurement"
    error = case.find("error")
    assert error is not None
    assert (error.get("type"), error.get("message")) == ("LOST", "no route; try again")
    assert parsed(AWAY).get("timestamp") is None


def test_a_file_that_was_never_measured_is_no_error() -> None:
    never = reading(origin=Origin("recorded", NOT_MEASURED, "no measurement is recorded"))
    suite = parsed(gate({"size": "5MB"}, now=never))
    assert suite.findtext("testcase/skipped") == "no measurement is recorded"
    assert (suite.get("errors"), suite.get("failures")) == ("0", "0")


def test_a_model_that_does_not_fit_is_a_failure_of_the_measurement() -> None:
    found = gate({"size": "5MB"}, now=reading(origin=replace(ORIGIN, outcome="OOM", message="does not fit")))
    failure = parsed(found).find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "does not fit"


def test_what_a_device_says_breaks_nothing() -> None:
    suite = parsed(HOSTILE)
    assert suite.get("name") == "a & <b> \"c\" 'd' ]]> \ufffd[31m \ufffd"
    error = suite.find("testcase/error")
    assert error is not None
    assert error.text == "<script>\ufffd</script>"


def test_where_it_was_measured_is_told() -> None:
    facts = {entry.get("name"): entry.get("value") for entry in parsed(RED).iter("property")}
    assert facts["source"] == "measured now, at 2026-11-21T12:00:00+00:00"
    assert facts["target"] == "ssh://pi@camera"
    assert facts["measured on"] == (
        "Raspberry Pi 4 Model B (4 processors, aarch64), onnxruntime 1.20.1, 1 thread, profile raspberry-pi-4b, "
        "target ssh://pi@camera"
    )
