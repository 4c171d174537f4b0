"""Signs of throttling, read from folders like proc and sys, and a start that waits until the device is cool."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprune.agent.device.agent import Agent
from edgeprune.agent.device.conditions import Signs, conditions, hottest, throttle_reason, wait_until_cool
from edgeprune.agent.device.frames import OutcomeError
from edgeprune.agent.device.system import machine

CPUFREQ = "sys/devices/system/cpu/cpufreq/policy0/"


def put(root: Path, files: dict[str, Any]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def zone(number: int, kind: str, celsius: float) -> dict[str, Any]:
    folder = f"sys/class/thermal/thermal_zone{number}/"
    return {folder + "type": kind, folder + "temp": round(celsius * 1000)}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    return put(
        tmp_path / "board",
        {
            **zone(0, "cpu-thermal", 55.0),
            **zone(1, "PMIC-Die", 100.0),  # constant on some boards
            **zone(2, "modem", -274.0),  # off
            CPUFREQ + "scaling_cur_freq": 1500000,
            CPUFREQ + "scaling_max_freq": 1800000,
            CPUFREQ + "cpuinfo_max_freq": 1800000,
            "sys/class/hwmon/hwmon3/oc2_event_cnt": 15,
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device0/cur_state": 0,
            "sys/class/thermal/cooling_device1/type": "pwm-fan",
            "sys/class/thermal/cooling_device1/cur_state": 3,
        },
    )


def test_the_temperature_is_that_of_the_processor(board: Path, tmp_path: Path) -> None:
    assert hottest(board) == 55.0
    assert hottest(tmp_path / "none") is None
    assert hottest(put(tmp_path / "other", {**zone(0, "acpitz", 30), **zone(1, "x", 41.5)})) == 41.5


def test_a_quiet_board_has_no_sign(board: Path) -> None:
    before = conditions(board)
    signs = Signs(board, before)
    signs.look(loaded=True)
    assert signs.reason(conditions(board)) == ""
    assert signs.during() == {"hottest_c": 55.0, "clock_share": 1500000 / 1800000}


@pytest.mark.parametrize(
    ("meanwhile", "reason"),
    [
        ({"sys/class/thermal/cooling_device0/cur_state": 2}, "the kernel slows the processor to cool it (cpufreq-cpu0"),
        ({CPUFREQ + "scaling_max_freq": 1200000}, "the highest clock allowed fell: " + CPUFREQ),
    ],
)
def test_what_was_seen_only_meanwhile_counts(board: Path, meanwhile: dict[str, Any], reason: str) -> None:
    signs = Signs(board, conditions(board))
    then = {name: (board / name).read_text().strip() for name in meanwhile}
    put(board, {**meanwhile, **zone(0, "cpu-thermal", 81.0)})
    signs.look(loaded=True)
    put(board, {**then, **zone(0, "cpu-thermal", 55.0)})
    assert signs.reason(conditions(board)).startswith(reason)
    assert signs.during()["hottest_c"] == 81.0


def test_counts_that_rise(board: Path) -> None:
    before = conditions(board)
    put(board, {"sys/class/hwmon/hwmon3/oc2_event_cnt": 16})
    assert throttle_reason(before, conditions(board), {}) == (
        "the module throttled for over-current or under-voltage (oc*_event_cnt rose)"
    )
    put(board, {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": 1})
    assert (
        throttle_reason(before, conditions(board), {}) == "the processor throttled for heat (core_throttle_count rose)"
    )


def tool(folder: Path, name: str, answer: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)


def test_firmware_flags_of_now_are_kept_and_those_of_before_are_not_held_against_it(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool(tmp_path, "vcgencmd", "throttled=0x50000")
    signs = Signs(board, conditions(board))
    assert signs.reason(conditions(board)) == ""  # long ago
    tool(tmp_path, "vcgencmd", "throttled=0x50004")
    signs.look()
    tool(tmp_path, "vcgencmd", "throttled=0x50000")  # the sticky bits do not tell it apart from before
    assert signs.reason(conditions(board)) == "the firmware reports throttled (get_throttled=0x50004)"


def test_the_power_mode_of_a_jetson(board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tool(tmp_path, "nvpmodel", "NV Power Mode: 15W\n0")
    before = conditions(board)
    assert before["power_mode"] == "NV Power Mode: 15W 0"
    tool(tmp_path, "nvpmodel", "NV Power Mode: 7W\n1")
    assert "changed from 'NV Power Mode: 15W 0'" in throttle_reason(before, conditions(board), {})


def test_the_start_waits_until_it_is_cool(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.agent.device.conditions.POLL_S", 0.05)
    told: list[str] = []
    timer = threading.Timer(0.4, lambda: put(board, zone(0, "cpu-thermal", 44.0)))
    timer.start()
    assert wait_until_cool(board, 45.0, 20.0, told.append) == ""
    timer.join()
    assert told[0] == "cooling to 45 C (now 55.0 C)"
    assert len(told) >= 2


def test_a_device_that_does_not_cool_is_flagged(board: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    assert wait_until_cool(board, 45.0, 0.2, lambda _: None) == (
        "it was 55.0 C hot at the start, not below 45 C, after 0.2 s"
    )
    assert time.monotonic() - started >= 0.2
    assert "no thermal zone" in wait_until_cool(tmp_path / "none", 45.0, 9, lambda _: None)
    assert wait_until_cool(board, None, 9, lambda _: None) == ""


class Heard:
    """What the agent would send."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []

    def send(self, **frame: Any) -> None:
        self.frames.append(frame)


def test_a_throttled_attempt_is_made_again_and_no_more_often_than_asked(board: Path) -> None:
    agent: Any = Agent(Heard(), board)  # type: ignore[arg-type]
    attempts: list[int] = []

    def throttles_until(good: int) -> Any:
        def attempt(request: Any) -> dict[str, Any]:
            attempts.append(1)
            if len(attempts) < good:
                raise OutcomeError("THROTTLED", f"attempt {len(attempts)}")
            return {"outcome": "OK", "conditions": {}}

        return attempt

    request = {"id": 1, "policy": {"throttle_retries": 2, "cool_down_s": 0.1, "start_below_c": 60.0}}
    answer = agent.when_cool(throttles_until(3), request)
    assert answer["conditions"] == {"hot_start": "", "throttled_attempts": ["attempt 1", "attempt 2"]}
    attempts.clear()
    with pytest.raises(OutcomeError, match="attempt 3"):
        agent.when_cool(throttles_until(9), request)
    assert len(attempts) == 3
    attempts.clear()
    with pytest.raises(OutcomeError, match="attempt 1"):
        agent.when_cool(throttles_until(9), {"id": 1, "policy": {}})


def test_other_outcomes_are_not_tried_again(board: Path) -> None:
    agent: Any = Agent(Heard(), board)  # type: ignore[arg-type]
    attempts: list[int] = []

    def attempt(request: Any) -> dict[str, Any]:
        attempts.append(1)
        raise OutcomeError("OOM", "too large")

    with pytest.raises(OutcomeError, match="too large"):
        agent.when_cool(attempt, {"id": 1, "policy": {"throttle_retries": 5}})
    assert len(attempts) == 1


def test_conditions_of_a_board(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/loadavg": "0.25 0.50 1.00 1/100 4242",
            "proc/meminfo": "MemTotal: 948000 kB\nMemAvailable: 512000 kB\nSwapTotal: 100 kB\nSwapFree: 40 kB",
            "sys/class/thermal/thermal_zone0/temp": "61837",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal",
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device0/cur_state": "2",
            "sys/class/thermal/cooling_device1/type": "fan",
            "sys/class/thermal/cooling_device1/cur_state": "3",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "600000",
        },
    )
    seen = conditions(root)
    assert seen["load"] == [0.25, 0.5, 1.0]
    assert seen["memory_available_bytes"] == 512000 * 1024
    assert seen["swap_used_bytes"] == 60 * 1024
    assert seen["temperature_c"] == {"sys/class/thermal/thermal_zone0/temp:cpu-thermal": 61.837}
    assert seen["governor"] == ["ondemand"]
    assert seen["frequency_khz"] == {"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 600000}
    assert seen["cooling"] == {"cpufreq-cpu0/cooling_device0": 2}


def test_machine_of_a_board(tmp_path: Path) -> None:
    root = put(
        tmp_path,
        {
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08",
            "proc/meminfo": "MemTotal:  3884360 kB",
            "proc/sys/kernel/random/boot_id": "0f1e",
        },
    )
    seen = machine(root)
    assert (seen["board"], seen["cpu"]) == ("Raspberry Pi 4 Model B Rev 1.4", "0xd08")
    assert (seen["memory_bytes"], seen["boot_id"]) == (3884360 * 1024, "0f1e")


def test_bare_system_has_no_conditions(tmp_path: Path) -> None:
    seen = conditions(tmp_path)
    assert (seen["load"], seen["temperature_c"], seen["memory_available_bytes"]) == ([], {}, None)


@pytest.mark.parametrize(
    ("before", "after", "cooling", "reason"),
    [
        (None, None, {}, ""),
        (0, 0, {}, ""),
        (0x50000, 0x50000, {}, ""),  # only in the past
        (0, 0x50005, {}, "the firmware reports under-voltage, throttled (get_throttled=0x50005)"),
        (0, 0x80000, {}, "the firmware reports soft temperature limit (get_throttled=0x80000)"),
        (None, None, {"cpufreq-cpu0/cooling_device0": 0}, ""),
        (None, None, {"cpufreq-cpu0/x": 3}, "the kernel slows the processor to cool it (cpufreq-cpu0/x)"),
    ],
)
def test_throttling(before: int | None, after: int | None, cooling: dict[str, int], reason: str) -> None:
    assert throttle_reason({"throttled": before}, {"throttled": after}, cooling) == reason
