"""The project file: what it may say, what it means, and how a mistake in it is told."""

import shlex
from pathlib import Path

import jsonschema
import pytest
import yaml

from edgeprune.errors import ConfigError
from edgeprune.records.budget import Budget
from edgeprune.records.project import DeviceSettings, ExecutorSettings, SearchSettings, load_project
from edgeprune.records.project_reader import PROJECT
from edgeprune.records.recovery import FineTuneSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text("class Digits: ...\n")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "edgeprune.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_full_project(folder: Path) -> None:
    (folder / "camera.yaml").write_text("name: camera\nextends: raspberry-pi-5\n")
    path = write(
        folder,
        """
task: task.py:Digits
device:
  profile: camera.yaml
  target: ssh://pi@camera:2222
  identity_file: keys/id_ed25519
  known_hosts: ~/hosts
budget: {latency: {p50: 60% of dense}, size: 50% of dense, accuracy: {max_drop: 2pp}}
search: {strategy: greedy, importance: taylor, seed: 7, round_to: 4, min_width: 2, max_trials: 12,
         ignored: ["head.*", stem]}
recovery:
  {epochs: 3, learning_rate: 5e-3, momentum: 0, weight_decay: 0.0, temperature: 2, distillation: 1,
   max_batches_per_epoch: 10}
export: {format: onnx}
runs: ../runs
""",
    )
    project = load_project(path)
    assert project.path == path
    assert project.folder == folder
    assert project.task == "task.py:Digits"
    assert project.device == DeviceSettings(
        str(folder / "camera.yaml"), "ssh://pi@camera:2222", folder / "keys/id_ed25519", Path("~/hosts").expanduser()
    )
    assert project.budget == Budget.parse(
        {"latency": {"p50": "60% of dense"}, "size": "50% of dense", "accuracy": {"max_drop": "2pp"}}
    )
    assert project.search == SearchSettings("greedy", "taylor", 7, 4, 2, 12, ("head.*", "stem"))
    assert project.recovery == FineTuneSettings(3, 0.005, 0.0, 0.0, 2.0, 1.0, 10)
    assert project.runs == folder / "../runs"


def test_defaults_and_a_folder_as_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "task: task.py:Digits\n")
    monkeypatch.chdir(folder.parent)
    project = load_project(Path(folder.name))
    assert project.path == folder / "edgeprune.yaml"
    assert project.device == DeviceSettings("host", "local")
    assert project.search == SearchSettings("milp", "l2", 0, None, 8, 40)
    assert project.recovery == FineTuneSettings(6, 0.02, 0.9, 5e-4, 4.0, 0.9, None)
    assert project.export.format == "onnx"
    assert project.runs == folder / "runs"
    assert project.budget.limits == ()


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("l1", "l1"),
        ("{name: l1}", "l1"),
        ('"l1:members=all,reduce=max"', "l1:members=all,reduce=max"),
        ("l1:members=all,reduce=max", "l1:members=all,reduce=max"),
        ("{name: l1, members: all, reduce: max}", "l1:members=all,reduce=max"),
    ],
)
def test_an_importance_may_have_parameters(folder: Path, written: str, text: str) -> None:
    document = f"task: task.py:Digits\nsearch:\n  importance: {written}\n"
    assert load_project(write(folder, document)).search.importance == text
    assert jsonschema.Draft202012Validator(PROJECT.schema()).is_valid(yaml.safe_load(document))


def test_a_task_can_be_in_a_module_or_a_folder(folder: Path) -> None:
    (folder / "tasks").mkdir()
    (folder / "tasks" / "digits.py").touch()
    for task in ("mypackage.tasks:Digits", "tasks/digits.py:make.Digits"):
        assert load_project(write(folder, f"task: {task}\n")).task == task


@pytest.mark.parametrize(
    ("text", "place", "message", "hint"),
    [
        ("device: {profile: host}\n", "1:1", "the key 'task' is missing", "task.py:Digits"),
        ("task: task.py\n", "1:7", "task: 'task.py' does not name an object", "task.py:Digits"),
        ("task: task.py:3\n", "1:7", "does not name an object", "task.py:Digits"),
        ("task: taks.py:Digits\n", "1:7", "task: no such file: ", "did you mean 'task.py'?"),
        ("task: task.py:Digits\nbugdet: {}\n", "2:1", "bugdet: unknown key", "did you mean 'budget'?"),
        (
            "task: task.py:Digits\ndevice: {profil: host}\n",
            "2:10",
            "device.profil: unknown key",
            "did you mean 'profile'?",
        ),
        (
            "task: task.py:Digits\ndevice: {profile: hots}\n",
            "2:19",
            "device.profile: no device profile is called 'hots'",
            "did you mean 'host'?",
        ),
        ("task: task.py:Digits\ndevice: {profile: my.yaml}\n", "2:19", "device.profile: no such file: ", "relative"),
        (
            "task: task.py:Digits\ndevice: {target: ssh:pi@board}\n",
            "2:18",
            "'ssh:pi@board' is no target",
            "did you mean 'ssh://'?",
        ),
        (
            "task: task.py:Digits\ndevice: {target: pi@camera}\n",
            "2:18",
            "'pi@camera' is no target",
            "did you mean ssh://pi@camera?",
        ),
        (
            "task: task.py:Digits\ndevice: {target: 'ssh://pi@camera:99999'}\n",
            "2:18",
            "Port out of range",
            "ssh://user@host:22",
        ),
        (
            "task: task.py:Digits\ndevice: {target: 'ssh://pi@:22'}\n",
            "2:18",
            "'ssh://pi@:22' is not the address of a host",
            "ssh://user@host:22",
        ),
        (
            "task: task.py:Digits\ndevice: {target: remote}\n",
            "2:18",
            "'remote' is no target",
            "valid here: adb://, local, ssh://",
        ),
        (
            "task: task.py:Digits\ndevice: {target: 'ssh://pi:secret@board'}\n",
            "2:18",
            "a password has no place in a file",
            "identity_file",
        ),
        (
            "task: task.py:Digits\nsearch: {strategy: gready}\n",
            "2:20",
            "search.strategy: the text 'gready' is not among the strategies",
            "did you mean 'greedy'?",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: l3}\n",
            "2:22",
            "the text 'l3' is not among the importances",
            "l1, l2",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: [l2]}\n",
            "2:22",
            "search.importance: a list is not among the importances",
            "l2",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: {reduce: sum}}\n",
            "2:22",
            "search.importance: the key 'name' is missing",
            "{name: l1, reduce: sum}",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: {name: l3, reduce: sum}}\n",
            "2:29",
            "search.importance.name: the text 'l3' is not among the importances",
            "l1, l2",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: {name: l1, reduce: 'a,b'}}\n",
            "2:41",
            "search.importance.reduce: 'a,b' does not fit",
            "reduce: sum",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: 'l3:reduce=sum'}\n",
            "2:22",
            "search.importance: the text 'l3' is not among the importances",
            "l1, l2",
        ),
        (
            "task: task.py:Digits\nsearch: {importance: 'l1:reduce'}\n",
            "2:22",
            "search.importance: 'l1:reduce' cannot be read",
            "l1:members=all",
        ),
        (
            "task: task.py:Digits\nsearch: {ignored: head}\n",
            "2:19",
            "search.ignored: expected a list, not the text 'head'",
            None,
        ),
        ("task: task.py:Digits\nsearch: {seed: -1}\n", "2:16", "search.seed: -1 is too small", "at least 0"),
        ("task: task.py:Digits\nsearch: {max_trials: 0}\n", "2:22", "search.max_trials: 0 is too small", "at least 1"),
        (
            "task: task.py:Digits\nrecovery: {learning_rate: 0}\n",
            "2:27",
            "recovery.learning_rate: 0 is out of range",
            "more than 0",
        ),
        ("task: task.py:Digits\nrecovery: {learning_rate: 1e999}\n", "2:27", "is out of range", "more than 0"),
        (
            "task: task.py:Digits\nrecovery: {momentum: 1.1}\n",
            "2:22",
            "1.1 is out of range",
            "at least 0 and at most 1",
        ),
        (
            "task: task.py:Digits\nrecovery: {temperature: warm}\n",
            "2:25",
            "expected a number, not the text 'warm'",
            "more",
        ),
        ("task: task.py:Digits\nrecovery: {epochs: 1.5}\n", "2:20", "expected a whole number", None),
        (
            "task: task.py:Digits\nrecovery: {epochs: six}\n",
            "2:20",
            "expected a whole number, not the text 'six'",
            None,
        ),
        (
            "task: task.py:Digits\nexport: {format: onxx}\n",
            "2:18",
            "is not among the exporters",
            "did you mean 'onnx'?",
        ),
        (
            "task: task.py:Digits\nbudget: {latency: {p95: 30}}\n",
            "2:25",
            "budget: latency.p95: 30 is a bare number",
            '"30ms"',
        ),
        (
            "task: task.py:Digits\nbudget:\n  size: 4KB\n",
            "3:9",
            "budget: size: '4KB': 'KB' is ambiguous",
            "4kB or 4KiB",
        ),
        ("task: task.py:Digits\nruns: 5\n", "2:7", "runs: expected text, not the number 5", 'in quotes: "5"'),
    ],
)
def test_a_mistake_is_refused_with_its_place(
    folder: Path, text: str, place: str, message: str, hint: str | None
) -> None:
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_project(path)
    assert str(caught.value).startswith(f"{path}:{place}: "), str(caught.value)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_the_declaration_also_gives_a_schema(folder: Path) -> None:
    validator = jsonschema.Draft202012Validator(PROJECT.schema())
    for text, is_valid in (
        ("task: task.py:Digits\n", True),
        (
            "task: task.py:Digits\nsearch: {strategy: greedy}\nrecovery: {learning_rate: 0.1, momentum: 1}\nruns: o\n",
            True,
        ),
        ("task: task.py:Digits\nsearch: {strategy: gready}\n", False),
        ("task: task.py:Digits\nsearch: {importance: l3}\n", False),
        ("task: task.py:Digits\nsearch: {importance: {name: l3}}\n", False),
        ("task: task.py:Digits\nsearch: {importance: {reduce: sum}}\n", False),
        ("task: task.py:Digits\nrecovery: {learning_rate: 0}\n", False),
        ("task: task.py:Digits\nrecovery: {momentum: 1.5}\n", False),
        ("task: task.py:Digits\nruns: ''\n", False),
    ):
        assert validator.is_valid(yaml.safe_load(text)) == is_valid, text
        path = write(folder, text)
        if is_valid:
            load_project(path)
        else:
            with pytest.raises(ConfigError):
                load_project(path)


def test_the_place_of_a_budget_error_is_kept_on_the_error(folder: Path) -> None:
    path = write(folder, "task: task.py:Digits\nbudget:\n  latency: {p95: 30}\n")
    with pytest.raises(ConfigError) as caught:
        load_project(path)
    error = caught.value
    assert (error.path, error.line, error.column, error.key) == (path, 3, 18, "budget.latency.p95")


def test_a_missing_project_file(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "my project"):
        with pytest.raises(ConfigError, match=r"edgeprune\.yaml: no such file: there is no project in") as caught:
            load_project(folder)
        assert str(caught.value.hint).endswith(f"edgeprune init {shlex.quote(str(folder))}")
    with pytest.raises(ConfigError, match=r"other\.yaml: no such file$"):
        load_project(tmp_path / "other.yaml")


def test_the_executor_is_this_process_where_nothing_is_said(folder: Path) -> None:
    document = "task: task.py:Digits\nexecutor: {kind: ray, workers: 4, cpus: 2, gpus: 0.5, address: '10.0.0.1:6379'}\n"
    assert load_project(write(folder, "task: task.py:Digits\n")).executor == ExecutorSettings("local", 1, 1, 0.0)
    assert load_project(write(folder, document)).executor == ExecutorSettings("ray", 4, 2, 0.5, "10.0.0.1:6379")
    for wrong in ("{kind: rai}", "{workers: 0}", "{device: '../x'}"):
        with pytest.raises(ConfigError, match=r"executor\."):
            load_project(write(folder, f"task: task.py:Digits\nexecutor: {wrong}\n"))
