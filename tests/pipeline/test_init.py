"""Beginning a project: the files are there, nothing is overwritten, and the example works."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeprune import atomic
from edgeprune.errors import StorageError, TaskError, UsageError
from edgeprune.pipeline.init import examples, init
from edgeprune.pipeline.task import load_task
from edgeprune.records.project import load_project


def test_the_skeleton_is_a_valid_project_that_says_what_to_fill_in(tmp_path: Path) -> None:
    files = init(tmp_path / "mine")
    assert [file.name for file in files] == ["edgeprune.yaml", "task.py"]
    project = load_project(tmp_path / "mine")
    assert project.task == "task.py:MyTask"
    assert [limit.metric for limit in project.budget.limits] == ["latency.p50", "accuracy.max_drop"]
    task = load_task(project.task, project.folder)
    with pytest.raises(TaskError, match="return your trained network"):
        task.model()


def test_the_commented_settings_of_the_skeleton_are_valid_too(tmp_path: Path) -> None:
    _, text = (init(tmp_path)[0], (tmp_path / "edgeprune.yaml").read_text())
    lines = [
        line.replace("# ", "", 1)
        if line.lstrip().startswith("# ") and ":" in line.split("#", 2)[1].split()[0]
        else line
        for line in text.splitlines()
    ]
    assert sum(a != b for a, b in zip(lines, text.splitlines(), strict=True)) >= 6
    (tmp_path / "edgeprune.yaml").write_text("\n".join(lines) + "\n")
    project = load_project(tmp_path)
    assert "peak_memory" in {limit.metric for limit in project.budget.limits}
    assert project.search.round_to == 8
    assert project.recovery.max_batches_per_epoch == 500


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("mine")
    with pytest.raises(UsageError, match=r"task\.py exists already"):
        init(tmp_path)
    assert (tmp_path / "task.py").read_text() == "mine"
    assert not (tmp_path / "edgeprune.yaml").exists()


def test_an_unknown_example_names_the_known_ones(tmp_path: Path) -> None:
    assert examples() == ("digits",)
    with pytest.raises(UsageError, match="no example 'mnist'") as caught:
        init(tmp_path / "new", example="mnist")
    assert caught.value.hint == "examples: digits"
    assert not (tmp_path / "new").exists()


def test_a_file_in_the_place_of_the_folder_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        init(tmp_path / "file" / "below")


def test_a_folder_that_cannot_be_written_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        init("/proc/edgeprune-example")


def test_a_full_disk_leaves_nothing_in_the_way_of_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        if path.name == "task.py":
            raise StorageError(f"cannot write {path}: No space left on device", hint="free space there")
        path.write_bytes(data)

    (tmp_path / "there").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write_bytes", full)
        for folder in ("new", "there"):
            with pytest.raises(StorageError, match=r"task\.py: No space left") as caught:
                init(tmp_path / folder)
            assert caught.value.hint == "free space there"
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []
    assert len(init(tmp_path / "there")) == 2


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    init(folder, example="digits")
    return folder


def test_the_digits_example_trains_to_97_percent_and_keeps_its_weights(digits: Path) -> None:
    project = load_project(digits)
    assert [limit.text for limit in project.budget.limits] == ["60% of dense", "50% of dense", "2pp"]
    task = load_task(project.task, project.folder)
    trained = task.model()
    assert task.evaluate(trained) >= 0.97
    again = load_task(project.task, project.folder).model()
    pairs = zip(trained.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    images, labels = next(task.train_batches())
    assert images.shape == (64, 1, 16, 16)
    assert labels.shape == (64,)
    with torch.no_grad():
        assert task.loss(trained, (images, labels)).item() < 0.2
