"""Device profiles: the shipped ones, strict reading, inheritance."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune.errors import ConfigError
from edgeprune.records.budget import Budget
from edgeprune.records.profile import (
    CoreCluster,
    DeviceProfile,
    MeasurementPolicy,
    PowerSensor,
    load_profile,
    profile_names,
)
from edgeprune.records.profile_reader import profile_folder

SHIPPED = (
    "android-arm64",
    "host",
    "jetson-agx-orin",
    "jetson-nano",
    "jetson-orin-nano",
    "jetson-xavier-nx",
    "pixel-6",
    "raspberry-pi-3b",
    "raspberry-pi-4b",
    "raspberry-pi-5",
    "raspberry-pi-zero-2-w",
)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_profile(path)
    assert caught.value.exit_code == 2
    return caught.value


def test_these_profiles_are_shipped() -> None:
    assert profile_names() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_is_complete_and_names_its_sources(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.title
    assert not profile.abstract
    assert profile.measurement.runtime in profile.runtimes
    assert profile.bits == 64
    assert profile.isa
    assert json.loads(json.dumps(profile.to_json()))["name"] == name
    text = (profile_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith(("soc:", "ram:", "isa:", "features:")):
            assert "#" in line, f"{name}: line {index + 1} gives no source"
        if line.startswith(("cores:", "power_sensors:", "throttle_sources:")):
            assert any("#" in near for near in lines[index : index + 4]), f"{name}: line {index + 1} gives no source"


def test_figures_of_a_board() -> None:
    profile = load_profile("raspberry-pi-zero-2-w")
    assert profile.cores == (CoreCluster(4, "Cortex-A53", 1000.0),)
    assert profile.core_count == 4
    assert profile.ram_bytes == 512 * 1024**2
    assert profile.lineage == ("raspberry-pi", "aarch64-linux")
    assert profile.power_sensors == ()
    assert profile.throttle_sources[0].source == "vcgencmd get_throttled"
    assert profile.budget == Budget.parse({"accuracy": {"max_drop": "1.0pp"}, "peak_memory": "128MiB"})
    assert load_profile("raspberry-pi-4b").ram_bytes is None  # sold with several: never guessed
    orin = load_profile("jetson-orin-nano")
    assert orin.power_sensors == (
        PowerSensor(
            "ina3221",
            "hwmon",
            "module",
            ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"),
            "VDD_IN is the whole module",
            "VDD_IN",
        ),
    )
    assert "tensorrt" in orin.runtimes
    assert "onnxruntime" in orin.runtimes
    assert load_profile("pixel-6").system == "android"


def test_the_default_policy_allows_an_honest_p95() -> None:
    policy = MeasurementPolicy()
    assert policy.min_runs >= 200
    assert policy.warmup_runs >= 3
    assert policy.warmup_s >= 1
    assert policy.deadline_s > policy.warmup_s + policy.max_s


def test_records_are_frozen_and_slotted() -> None:
    profile = DeviceProfile("x")
    for record in (profile, profile.measurement, CoreCluster(1, "x"), PowerSensor("a", "hwmon", "soc")):
        assert not hasattr(record, "__dict__")
        field = dataclasses.fields(record)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, field, "y")


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "camera",
        """
name: camera
extends: raspberry-pi-zero-2-w
title: Camera
alignment: 4
measurement: {threads: 4, min_time: 500ms, max_time: 1min, ci_share: 1%, deadline: 5min}
budget: {latency: {p95: 30ms}, peak_memory: 50MiB}
""",
    )
    profile = load_profile(path)
    assert profile.name == "camera"
    assert profile.path == path
    assert profile.lineage == ("raspberry-pi-zero-2-w", "raspberry-pi", "aarch64-linux")
    assert profile.soc.startswith("Raspberry Pi RP3A0")
    assert profile.alignment == 4
    assert profile.measurement == MeasurementPolicy(threads=4, min_s=0.5, max_s=60.0, ci_share=0.01, deadline_s=300.0)
    assert profile.budget.to_json() == {
        "accuracy": {"max_drop": "1.0pp"},
        "peak_memory": "50MiB",
        "latency": {"p95": "30ms"},
    }


@pytest.mark.parametrize(("written", "cores"), [("[2, 3]", (2, 3)), ("big", "big")])
def test_cores_to_stay_on(tmp_path: Path, written: str, cores: object) -> None:
    path = write(tmp_path, "board", f"name: board\nmeasurement: {{cores: {written}}}\n")
    assert load_profile(path).measurement.cores == cores


def test_extends_goes_from_file_to_file_and_null_removes(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    write(
        tmp_path / "bases",
        "base",
        "name: base\nabstract: true\ntitle: Base\nram: 1GiB\nruntimes: {onnxruntime: a, ncnn: b}\n"
        "budget: {size: 4MB, latency: {p50: 5ms}}\n",
    )
    write(tmp_path / "bases", "middle", "name: middle\nextends: base.yaml\nbits: 32\nruntimes: {ncnn: c}\n")
    leaf = write(
        tmp_path,
        "leaf",
        "name: leaf\nextends: bases/middle.yaml\nram:\nbudget: {latency: {p95: 9ms}, size: null}\n",
    )
    profile = load_profile(leaf)
    assert (profile.name, profile.title, profile.abstract) == ("leaf", "", False)  # these three are not inherited
    assert profile.lineage == ("middle", "base")
    assert profile.ram_bytes is None
    assert profile.bits == 32
    assert profile.runtimes == {"onnxruntime": "a", "ncnn": "c"}
    assert profile.budget.to_json() == {"latency": {"p50": "5ms", "p95": "9ms"}}
    with pytest.raises(ConfigError, match="base is abstract"):
        load_profile(tmp_path / "bases" / "base.yaml")


def test_an_error_in_a_base_is_reported_in_the_base(tmp_path: Path) -> None:
    base = write(tmp_path, "base", "name: base\nram: 4\n")
    leaf = write(tmp_path, "leaf", "name: leaf\nextends: ./base.yaml\nram: 1GiB\n")  # overridden, refused all the same
    error = refusal(leaf)
    assert str(error).startswith(f"{base}:2:6: ram: 4 is a bare number")


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("name: x\ntitel: X\n", "2:1", "titel: unknown key", "did you mean 'title'? valid here: schema, name"),
        ("name: x\nmeasurement: {treads: 4}\n", "2:15", "measurement.treads: unknown key", "did you mean 'threads'?"),
        ("title: X\n", "1:1", "the key 'name' is missing", None),
        ("name: My Board\n", "1:7", "name: 'My Board' does not fit", "write it like my-board"),
        ("name: 5\n", "1:7", "name: expected text, not the number 5", 'write it in quotes: "5"'),
        ("name: x\nram: 512\n", "2:6", "ram: 512 is a bare number", "4MB or 4MiB"),
        ("name: x\nram: 512M\n", "2:6", "ram: '512M': 'M' is ambiguous", "512MB or 512MiB"),
        ("name: x\nram: 512ms\n", "2:6", "unknown unit 'ms' for a size", "units: B, kB"),
        ("name: x\nmeasurement:\n  min_time: 2\n", "3:13", "measurement.min_time: 2 is a bare number", '"30ms"'),
        ("name: x\nmeasurement: {cores: little}\n", "2:22", "expected cores, not ", "write it like [2, 3], or big"),
        ("name: x\nmeasurement: {cores: []}\n", "2:22", "expected cores, not ", "write it like [2, 3], or big"),
        ("name: x\nmeasurement: {cores: [1, 1]}\n", "2:22", "a core is named twice", "name each core once"),
        ("name: x\nmeasurement: {cores: [-1]}\n", "2:23", "-1 is too small", "at least 0"),
        ("name: x\nmeasurement: {threads: 2, cores: [3]}\n", "2:34", "1 cores for 2 threads", "one for each thread"),
        ("name: x\nmeasurement: {warmup_time: 10ms}\n", "2:28", "10ms is too small", "at least 1s"),
        ("name: x\nmeasurement: {warmup_runs: 1}\n", "2:28", "1 is too small", "at least 3"),
        ("name: x\nmeasurement: {ci_share: 0.02}\n", "2:25", "0.02 is a bare number", '"35%"'),
        ("name: x\nmeasurement: {ci_share: 0%}\n", "2:25", "out of range", "more than 0%"),
        ("name: x\nmeasurement: {threads: 1.5}\n", "2:24", "expected a whole number, not the number 1.5", None),
        ("name: x\nmeasurement: {threads: true}\n", "2:24", "expected a whole number, not the truth value true", None),
        ("name: x\nmeasurement: fast\n", "2:14", "measurement: expected keys with values, not the text 'fast'", None),
        ("name: x\nmeasurement: {min_time: 30s}\n", "2:14", "measurement: 20s is less than min_time", "at least 30s"),
        (
            "name: x\nmeasurement: {max_time: 1s}\n",
            "2:25",
            "measurement.max_time: 1s is less than min_time",
            "at least 2s",
        ),
        ("name: x\nmeasurement: {max_runs: 100}\n", "2:25", "measurement.max_runs: 100 is less than min_runs", None),
        ("name: x\nmeasurement: {deadline: 10s}\n", "2:25", "leaves no time", "more than 21s"),
        (
            "name: x\ncores: [{count: 2, name: A}]\nmeasurement: {threads: 3}\n",
            "3:24",
            "measurement.threads: 3 threads, but the device has 2 cores",
            None,
        ),
        (
            "name: x\nruntimes: {ncnn: yes it runs}\n",
            "1:1",
            "'onnxruntime' is not among the runtimes of this device",
            "valid here: ncnn",
        ),
        (
            "name: x\nextends: jetson-nano\nmeasurement: {runtime: tensort}\n",
            "3:24",
            "measurement.runtime: 'tensort' is not among the runtimes",
            "did you mean 'tensorrt'?",
        ),
        ("name: x\ncores: 4\n", "2:8", "cores: expected a list, not the number 4", None),
        ("name: x\ncores: [{name: A}]\n", "2:9", "cores[0]: the key 'count' is missing", None),
        (
            "name: x\ncores: [{count: 4, name: A, max_clock: 1.5}]\n",
            "2:40",
            "cores[0].max_clock: 1.5 is a bare number",
            "1.5GHz",
        ),
        ("name: x\nbits: 16\n", "2:7", "bits: the number 16 is not among the choices", "valid here: 32, 64"),
        ("name: x\nsystem: linx\n", "2:9", "system: the text 'linx' is not among the choices", "did you mean 'linux'?"),
        ("name: x\nabstract: 1\n", "2:11", "abstract: expected true or false, not the number 1", None),
        ("name: x\nalignment: 0\n", "2:12", "0 is too small", "at least 1"),
        ("name: x\nschema: edgeprune.profile/2\n", "2:9", "is not among the choices", "edgeprune.profile/1"),
        (
            "name: x\nextends: raspberry-pi-6\n",
            "2:10",
            "extends: no device profile is called 'raspberry-pi-6'",
            "did you mean 'raspberry-pi-",
        ),
        ("name: x\nextends: other.yaml\n", "2:10", "extends: no such file", "relative to this file"),
        (
            "name: x\nextends: x.yaml\n",
            "2:10",
            "extends: profiles extend each other in a circle: x.yaml -> x.yaml",
            "break the circle",
        ),
        ("name: x\nbudget: {latency: {p95: 30}}\n", "2:25", "budget: latency.p95: 30 is a bare number", '"30ms"'),
        (
            "name: x\nbudget:\n  peek_memory: 4MB\n",
            "3:3",
            "budget: unknown limit 'peek_memory'",
            "did you mean 'peak_memory'?",
        ),
        ("name: x\nbudget: {latency: {p94: 30ms}}\n", "2:20", "latency: unknown figure 'p94'", "did you mean 'p9"),
        ("name: x\nbudget: {latency: 30ms}\n", "2:19", "latency: '30ms' does not say which figure", "{p95: 30ms}"),
        ("name: x\nbudget: 30ms\n", "2:9", "budget: expected keys with values", None),
        ("name: x\nname: y\n", "2:1", "name: written twice, first in line 1", None),
        ("name: x\nsoc:\n", "2:5", "soc: expected text, not nothing", None),
        ("name: x\nsoc: ''\n", "2:6", "soc: the text is empty", None),
        (
            "name: x\npower_sensors: [{name: a, kind: hwmom, scope: soc}]\n",
            "2:33",
            "power_sensors[0].kind",
            "did you mean 'hwmon'?",
        ),
    ],
)
def test_a_mistake_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, message: str, hint: str | None
) -> None:
    path = write(tmp_path, "x", text)
    error = refusal(path)
    assert str(error).startswith(f"{path}:{place}: "), str(error)
    assert message in str(error)
    if hint is not None:
        assert hint in (error.hint or "")


def test_a_longer_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", "name: a\nextends: b.yaml\n")
    write(tmp_path, "b", "name: b\nextends: ./c.yaml\n")
    c = write(tmp_path, "c", "name: c\nextends: a.yaml\n")
    error = refusal(tmp_path / "a.yaml")
    assert str(error).startswith(f"{c}:2:10: extends: profiles extend each other in a circle")
    assert "a.yaml -> b.yaml -> c.yaml -> a.yaml" in str(error)


def test_unknown_names_and_paths() -> None:
    with pytest.raises(ConfigError, match="no device profile is called 'raspbery-pi-5'") as caught:
        load_profile("raspbery-pi-5")
    assert "did you mean 'raspberry-pi-5'?" in (caught.value.hint or "")
    with pytest.raises(ConfigError, match="no device profile is called ''"):
        load_profile("")
    with pytest.raises(ConfigError, match=r"nowhere/board\.yaml: no such file"):
        load_profile("nowhere/board.yaml")
    with pytest.raises(ConfigError, match="raspberry-pi is abstract") as caught:
        load_profile("raspberry-pi")
    assert "raspberry-pi-5" in (caught.value.hint or "")


def test_importing_the_records_loads_nothing_heavy() -> None:
    program = (
        "import sys, pkgutil, importlib, edgeprune.records as records\n"
        "readers = {'yaml_reader', 'fields', 'budget_field', 'profile_reader', 'profile_schema', 'project_reader', "
        "'gate_policy_reader'}\n"
        "for module in pkgutil.iter_modules(records.__path__):\n"
        "    if module.name not in readers:\n"
        "        importlib.import_module(f'edgeprune.records.{module.name}')\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'scipy', 'paramiko', 'click', 'rich', 'yaml'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "from edgeprune.records.profile import load_profile\n"
        "load_profile('raspberry-pi-5')\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.splitlines() == ["[]", "['yaml']"]
