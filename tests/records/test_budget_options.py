"""The budget that command-line options make of a project's."""

from pathlib import Path

import pytest

from edgeprune.errors import ConfigError, UsageError
from edgeprune.records.budget import Budget
from edgeprune.records.project import budget_overrides, load_project

FILE_BUDGET = Budget.parse({"latency": {"p95": "30ms"}, "size": "4MB", "accuracy": {"max_drop": "1pp"}})


@pytest.mark.parametrize("name", ["task.py", "task.py:Digits"])
def test_a_task_is_not_a_project(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "my digits"
    folder.mkdir()
    (folder / "task.py").write_text("class Digits: ...\n")
    with pytest.raises(ConfigError, match="this is a task, not a project") as caught:
        load_project(folder / name)
    assert caught.value.hint == f"name the folder or edgeprune.yaml, like: edgeprune run '{folder}'"


def test_options_replace_and_add_limits() -> None:
    budget = budget_overrides(
        FILE_BUDGET, max_latency="20ms", max_memory="50MiB", max_size="50% of dense", max_energy="12mJ", max_drop="2pp"
    )
    assert budget.to_json() == {
        "latency": {"p95": "20ms"},  # the percentile that the file limits
        "peak_memory": "50MiB",
        "size": "50% of dense",
        "energy": "12mJ",
        "accuracy": {"max_drop": "2pp"},
    }
    assert budget_overrides(FILE_BUDGET) == FILE_BUDGET


def test_which_latency_is_meant() -> None:
    assert budget_overrides(Budget(), max_latency="20ms").to_json() == {"latency": {"p50": "20ms"}}
    mean = Budget.parse({"latency": {"mean": "9ms"}})
    assert budget_overrides(mean, max_latency="20ms").to_json() == {"latency": {"mean": "20ms"}}
    assert budget_overrides(FILE_BUDGET, max_latency="p50=20ms").to_json()["latency"] == {"p95": "30ms", "p50": "20ms"}
    both = Budget.parse({"latency": {"p50": "9ms", "p95": "30ms"}})
    with pytest.raises(UsageError, match="the budget limits p50 and p95; which one is '20ms' about") as caught:
        budget_overrides(both, max_latency="20ms")
    assert caught.value.hint == "name it: --max-latency p95=20ms"
    assert budget_overrides(both, max_latency="p95=20ms").to_json()["latency"] == {"p50": "9ms", "p95": "20ms"}


@pytest.mark.parametrize(
    ("option", "value", "message", "hint"),
    [
        ("max_latency", "30", "--max-latency: '30' has no unit", "30ms"),
        ("max_latency", "p96=30ms", "--max-latency: unknown figure 'p96'", "did you mean 'p9"),
        ("max_memory", "50M", "--max-memory: '50M': 'M' is ambiguous", "50MB or 50MiB"),
        ("max_size", "50%", "--max-size: '50%': percent of what?", "50% of dense"),
        ("max_energy", "12ms", "--max-energy: '12ms': unknown unit 'ms' for an energy", "nJ"),
        ("max_drop", "1", "--max-drop: '1': a drop of accuracy needs pp or %", "1.0pp"),
    ],
)
def test_wrong_options_name_the_option(option: str, value: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        budget_overrides(FILE_BUDGET, **{option: value})  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2
