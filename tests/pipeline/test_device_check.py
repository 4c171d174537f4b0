"""What the health check makes of what a device says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import TargetError
from edgeprune.measure.session import Session
from edgeprune.pipeline import device_check
from edgeprune.pipeline.device_check import check_session, refuse_unhealthy
from edgeprune.pipeline.golden import TOLERANCE, difference
from edgeprune.progress import SILENT
from edgeprune.records.profile import load_profile
from edgeprune.targets.local import LocalTarget

COOL = {"temperature_c": {"zone0:cpu": 41.5}, "cooling": {"cpufreq/cooling_device0": 0}, "throttled": 0x50000}


@pytest.mark.parametrize(
    ("conditions", "state", "said"),
    [
        ({}, "ok", "no temperature"),
        (COOL, "ok", "42 °C, not throttled"),  # it throttled once, but not now
        ({**COOL, "temperature_c": {"zone0:cpu": 41.5, "zone1:gpu": 85.0}}, "warning", "85 °C"),
        ({**COOL, "throttled": 0x50005}, "failed", "get_throttled=0x50005"),
        ({**COOL, "cooling": {"cpufreq/cooling_device0": 2}}, "failed", "cpufreq/cooling_device0"),
    ],
)
def test_heat(conditions: dict[str, Any], state: str, said: str) -> None:
    finding = device_check._heat(conditions)
    assert (finding.name, finding.state) == ("heat", state)
    assert said in finding.message
    assert bool(finding.fix) == (state != "ok")


@pytest.mark.parametrize(
    ("home", "folder", "state"),
    [
        (1 << 30, 1 << 30, "ok"),
        (100 << 20, 1 << 30, "warning"),
        (1 << 30, 100 << 20, "warning"),
        (0, 1 << 30, "failed"),
    ],
)
def test_space(home: int, folder: int, state: str) -> None:
    finding = device_check._space({"free_bytes": home, "folder_free_bytes": folder})
    assert finding.state == state
    assert f"{home / 1e6:.0f} MB free in the home folder, {folder / 1e6:.0f} MB" in finding.message


@pytest.mark.parametrize(
    ("there", "state", "said"),
    [(1000.0, "ok", "agrees"), (1135.0, "warning", "130 s ahead"), (-2595.0, "warning", "3600 s behind")],
)
def test_clock(there: float, state: str, said: str) -> None:
    finding = device_check._clock(there, 1000.0, 1010.0)
    assert finding.state == state
    assert said in finding.message


def test_a_slow_link_is_no_wrong_clock() -> None:
    assert device_check._clock(1000.0, 1000.0, 1300.0).state == "ok"


@pytest.mark.parametrize(
    ("conditions", "states"),
    [({}, []), ({"swap_used_bytes": 0}, ["ok"]), ({"swap_used_bytes": 5 << 20}, ["warning"])],
)
def test_swap(conditions: dict[str, Any], states: list[str]) -> None:
    assert [finding.state for finding in device_check._swap(conditions)] == states


@pytest.mark.parametrize(("load", "state"), [(0.9, "ok"), (1.1, "warning")])
def test_load(load: float, state: str) -> None:
    assert device_check._load({"load": [load, 0.0, 0.0]}, 2).state == state


@pytest.mark.parametrize(
    ("governors", "states"), [([], []), (["performance"], ["ok"]), (["ondemand", "performance"], ["warning"])]
)
def test_governor(governors: list[str], states: list[str]) -> None:
    assert [finding.state for finding in device_check._governor({"governor": governors})] == states


def test_a_difference_is_a_share_of_the_largest_output() -> None:
    expected = ((2.0, -4.0), (1.0,))
    assert difference(expected, [[2.0, -4.0], [1.0]]) == 0
    assert difference(expected, [[2.0, -3.9], [1.0]]) == pytest.approx(0.025)
    for wrong in ([[2.0, -4.0]], [[2.0], [1.0]], None, [[2.0, float("nan")], [1.0]]):
        assert not difference(expected, wrong) <= TOLERANCE


class Listening:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.step = SILENT.step

    def say(self, message: str) -> None:
        self.said.append(message)


def test_a_run_is_refused_on_an_unhealthy_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    progress = Listening()
    with Session(LocalTarget(), load_profile("host")) as session:
        assert {finding.state for finding in check_session(session)} <= {"ok", "warning"}
        monkeypatch.setattr(device_check, "_LOAD_SHARE", -1.0)
        refuse_unhealthy(session, progress)
        assert any("something else runs there" in line and "end what runs there" in line for line in progress.said)
        monkeypatch.setattr(device_check, "_NO_SPACE_BYTES", 1 << 60)
        monkeypatch.setattr(device_check, "_LITTLE_SPACE_BYTES", 1 << 60)
        with pytest.raises(TargetError, match=r"only .* MB free") as caught:
            refuse_unhealthy(session, progress)
    assert caught.value.outcome == "NO_SPACE"
    assert "free some space" in str(caught.value.hint)


def test_another_runtime_is_looked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    host = load_profile("host")
    policy = replace(host.measurement, runtime="tflite-runtime")
    with Session(LocalTarget(), host, policy=policy) as session:
        (finding,) = [finding for finding in check_session(session) if finding.name == "runtime"]
    there = "version" in session.runtimes.get("tflite-runtime", {})
    assert finding.state == ("ok" if there else "failed")
    assert "tflite-runtime" in finding.message
