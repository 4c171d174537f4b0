from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgeprune.pipeline import doctor, doctor_host
from edgeprune.pipeline.device_check import Finding
from edgeprune.pipeline.doctor import Diagnosis, Section, examine


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "device.lock"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for name in [name for name in os.environ if name.startswith("EDGEPRUNE_") and name.endswith("_PYTHON")]:
        monkeypatch.delenv(name)


def found(diagnosis: Diagnosis) -> dict[str, dict[str, Finding]]:
    return {section.name: {one.name: one for one in section.findings} for section in diagnosis.sections}


def test_this_installation_is_healthy_and_told_without_importing_what_is_heavy() -> None:
    program = (
        "import sys, json\n"
        "from edgeprune.pipeline.doctor import examine\n"
        "told = examine().to_json()\n"
        "print(json.dumps([told, [name for name in ('torch', 'onnx', 'onnxruntime', 'numpy') if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    told, loaded = json.loads(done.stdout)
    assert loaded == []
    assert told["healthy"] is True
    packages = {one["name"]: one for one in told["sections"]["packages"]}
    assert {"python", "edgeprune", "torch", "onnx", "onnxruntime", "scipy", "click"} <= set(packages)
    assert packages["torch"]["message"].startswith(f"{torch.__version__}, ")
    assert ("for CUDA" in packages["torch"]["message"]) is (torch.version.cuda is not None)
    assert list(told["sections"]) == ["packages", "extras", "environments", "runtimes", "machine", "space"]


def test_a_missing_package_fails_with_its_fix_and_a_missing_extra_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "" if name in {"paramiko", "matplotlib"} else there(name))
    diagnosis = examine()
    seen = found(diagnosis)
    assert not diagnosis.healthy
    assert seen["packages"]["paramiko"].state == "failed"
    assert seen["packages"]["paramiko"].fix == f"{sys.executable} -m pip install 'paramiko>=4'"
    assert seen["extras"]["plot"].state == "absent"
    assert seen["extras"]["plot"].fix == f"{sys.executable} -m pip install 'edgeprune[plot]'"


def test_an_old_package_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: "8.0.4" if name == "click" else there(name))
    assert found(examine())["packages"]["click"] == Finding(
        "click", "failed", "click 8.0.4 is older than 8.1", f"{sys.executable} -m pip install 'click>=8.1'"
    )


def test_an_environment_that_is_not_there_is_no_fault_and_one_that_does_not_serve_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tflite = found(examine())["environments"]["tflite"]
    assert (tflite.state, tflite.fix) == ("absent", "edgeprune doctor --install tflite")
    monkeypatch.setenv("EDGEPRUNE_TFLITE_PYTHON", sys.executable)  # it was asked for
    diagnosis = examine()
    tflite = found(diagnosis)["environments"]["tflite"]
    assert tflite.state == "failed"
    assert tflite.message.startswith(f"EDGEPRUNE_TFLITE_PYTHON: {sys.executable} lacks litert-torch")
    assert not diagnosis.healthy


def test_a_device_is_looked_at_and_one_out_of_reach_fails() -> None:
    seen = found(examine("local"))["local"]
    assert seen["reachable"].state == "ok"
    assert seen["runtime"].message.startswith("ONNX Runtime ")
    assert "power" in seen
    away = examine("ssh://nobody@127.0.0.1:9")
    assert not away.healthy
    assert found(away)["ssh://nobody@127.0.0.1:9"]["reachable"].state == "failed"


def test_who_holds_the_lock_is_seen_without_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "device.lock"
    path.write_text("")
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "somebody measures here now" in found(examine())["machine"]["lock"].message
    assert "nobody measures here" in found(examine())["machine"]["lock"].message


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_what_disturbs_measurements_is_read_from_the_system(tmp_path: Path) -> None:
    root = write(
        tmp_path / "root",
        sys__fs__cgroup__cpu_DOT_max="150000 100000\n",
        sys__fs__cgroup__memory_DOT_max="536870912\n",
        proc__meminfo="MemTotal: 8000000 kB\n",
        sys__devices__system__cpu__cpufreq__policy0__scaling_governor="powersave\n",
    )
    seen = {one.name: one for one in doctor_host.machine(root)}
    assert seen["cpu quota"].state == "warning"
    assert seen["cpu quota"].message == "this container may use 1.5 processors, and is stopped beyond that"
    assert seen["memory limit"].message == "this container may use 537 of 8192 MB"
    assert seen["governor"].message == "the processor's clock is not held (powersave)"
    assert "tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor" in seen["governor"].fix


def test_a_machine_that_limits_nothing_says_nothing(tmp_path: Path) -> None:
    root = write(
        tmp_path / "root",
        sys__fs__cgroup__cpu_DOT_max="max 100000\n",
        sys__fs__cgroup__memory_DOT_max="max\n",
        proc__meminfo="MemTotal: 8000000 kB\n",
        sys__devices__system__cpu__cpufreq__policy0__scaling_governor="performance\n",
    )
    energy = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    energy.parent.mkdir(parents=True)
    energy.write_text("1\n")
    seen = {one.name: one for one in doctor_host.machine(root)}
    assert set(seen) == {"lock", "governor", "energy"}
    assert {one.state for one in seen.values()} == {"ok"}


def test_health_is_that_nothing_failed() -> None:
    good = Section("a", (Finding("x", "ok", ""), Finding("y", "warning", ""), Finding("z", "absent", "")))
    assert Diagnosis((good,)).healthy
    assert not Diagnosis((good, Section("b", (Finding("w", "failed", ""),)))).healthy
