"""The published JSON Schema says what the reader does."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from edgeprune.errors import ConfigError
from edgeprune.records.profile import load_profile
from edgeprune.records.profile_reader import profile_folder
from edgeprune.records.profile_schema import profile_schema

VALIDATOR = jsonschema.Draft202012Validator(profile_schema())


def valid(data: Any) -> bool:
    return bool(VALIDATOR.is_valid(data))


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(profile_schema())


@pytest.mark.parametrize("path", sorted(profile_folder().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_file_is_valid(path: Path) -> None:
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    VALIDATOR.validate(data)
    assert data["name"] == path.stem
    assert data["schema"] == "edgeprune.profile/1"


GOOD: tuple[dict[str, Any], ...] = (
    {"name": "x"},
    {"name": "x", "ram": "512MiB", "measurement": {"min_time": "500 ms", "ci_share": "2%"}},
    {"name": "x", "measurement": {"min_time": "5us", "warmup_time": "1.5s"}},
    {"name": "x", "measurement": {"min_time": "5\u00b5s"}},
    {"name": "x", "cores": [{"count": 4, "name": "A", "max_clock": "1.5GHz"}]},
    {"name": "x", "budget": {"latency": {"p95": "30ms", "p50": "60% of dense"}, "size": "4MB", "energy": "12mJ"}},
    {"name": "x", "budget": {"accuracy": {"max_drop": "1.0pp", "min": "90%"}}},
    {"name": "x", "power_sensors": [{"name": "a", "kind": "hwmon", "scope": "rails", "rails": ["b"]}]},
)
BAD: tuple[dict[str, Any], ...] = (
    {},
    {"name": "X Y"},
    {"name": 5},
    {"name": "x", "titel": "y"},
    {"name": "x", "title": ""},
    {"name": "x", "ram": 512},
    {"name": "x", "ram": "512M"},
    {"name": "x", "ram": "512KB"},
    {"name": "x", "measurement": {"min_time": 2}},
    {"name": "x", "measurement": {"min_time": "2"}},
    {"name": "x", "measurement": {"min_time": "-2s"}},
    {"name": "x", "measurement": {"ci_share": 0.02}},
    {"name": "x", "measurement": {"threads": 0}},
    {"name": "x", "measurement": {"threads": 1.5}},
    {"name": "x", "measurement": {"warmup_runs": 2}},
    {"name": "x", "cores": 4},
    {"name": "x", "cores": [{"name": "A"}]},
    {"name": "x", "bits": 16},
    {"name": "x", "budget": {"latency": "30ms"}},
    {"name": "x", "budget": {"latency": {}}},
    {"name": "x", "budget": {"latency": {"p94": "30ms"}}},
    {"name": "x", "budget": {"size": "50%"}},
    {"name": "x", "budget": {"peek_memory": "4MB"}},
    {"name": "x", "budget": {"accuracy": {"max_drop": "1"}}},
    {"name": "x", "power_sensors": [{"name": "a", "kind": "hwmon", "scope": "everything"}]},
    {"name": "x", "runtimes": ["onnxruntime"]},
)


@pytest.mark.parametrize("data", GOOD)
def test_schema_and_reader_both_accept(data: dict[str, Any], tmp_path: Path) -> None:
    assert valid(data)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    assert load_profile(path).name == "x"


@pytest.mark.parametrize("data", BAD)
def test_schema_and_reader_both_refuse(data: dict[str, Any], tmp_path: Path) -> None:
    assert not valid(data)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    with pytest.raises(ConfigError):
        load_profile(path)


def test_null_removes_an_inherited_value_in_both(tmp_path: Path) -> None:
    data = {
        "name": "x",
        "extends": "jetson-nano",
        "ram": None,
        "budget": {"accuracy": {"max_drop": None, "min": "90%"}},
    }
    assert valid(data)
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    profile = load_profile(path)
    assert profile.ram_bytes is None
    assert profile.budget.to_json() == {"accuracy": {"min": "90%"}, "peak_memory": "1GiB"}
