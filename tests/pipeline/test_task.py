"""Every way in which a user's task can be wrong gives one error that says what, where and what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgeprune.errors import TaskError
from edgeprune.pipeline.task import load_task
from tests.pipeline.task_files import GOOD, line_of, load, write


def test_a_good_task_gives_what_its_parts_give(tmp_path: Path) -> None:
    write(tmp_path)
    task = load(tmp_path)
    model = task.model()
    assert isinstance(model, nn.Linear)
    assert [tuple(t.shape) for t in task.example_inputs()] == [(2, 3)]
    assert task.evaluate(model) == 0.9
    (batch,) = task.train_batches()
    expected = model(torch.ones(4, 3)).square().mean()
    assert torch.equal(task.loss(model, batch), expected)
    assert task.trainable
    assert task.has("loss")
    assert not task.has("teacher")


def test_a_single_tensor_is_an_input(tmp_path: Path) -> None:
    write(tmp_path, example_inputs="def example_inputs(self): return torch.ones(2, 3)")
    (tensor,) = load(tmp_path).example_inputs()
    assert torch.equal(tensor, torch.ones(2, 3))


def test_the_optional_parts_may_be_missing_together(tmp_path: Path) -> None:
    write(tmp_path, remove=("train_batches", "loss"))
    task = load(tmp_path)
    assert not task.trainable
    with pytest.raises(TaskError, match=r"has no train_batches\(\)") as caught:
        list(task.train_batches())
    assert "def" not in (caught.value.hint or "")
    assert "train_batches(self) -> Iterable" in (caught.value.hint or "")


@pytest.mark.parametrize(("kept", "absent"), [("train_batches", "loss"), ("loss", "train_batches")])
def test_one_optional_part_without_the_other_is_refused(tmp_path: Path, kept: str, absent: str) -> None:
    path = write(tmp_path, remove=(absent,))
    with pytest.raises(TaskError, match=rf"has {kept}\(\) but no {absent}\(\)") as caught:
        load(tmp_path)
    assert line_of(path, "class Mine") in caught.value.message


@pytest.mark.parametrize("part", ["model", "example_inputs", "evaluate"])
def test_a_missing_part_is_said_with_its_signature(tmp_path: Path, part: str) -> None:
    path = write(tmp_path, remove=(part,))
    with pytest.raises(TaskError, match=rf"has no {part}\(\)") as caught:
        load(tmp_path)
    assert line_of(path, "class Mine") in caught.value.message
    assert f"write {part}(self" in (caught.value.hint or "")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("part", sorted(GOOD))
def test_a_misspelt_part_is_recognised(tmp_path: Path, part: str) -> None:
    misspelt = part[:-1]
    write(tmp_path, **{part: GOOD[part].replace(f"def {part}(", f"def {misspelt}(")})
    with pytest.raises(TaskError) as caught:
        load(tmp_path)
    assert f"did you mean {part!r}?" in (caught.value.hint or "")


def test_a_part_that_is_no_method_is_refused(tmp_path: Path) -> None:
    write(tmp_path, model="model = nn.Linear(3, 2).weight")
    with pytest.raises(TaskError, match="has 'model', but not as a method"):
        load(tmp_path)


def test_a_missing_file_names_the_near_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(TaskError, match=f"no such file: {tmp_path / 'tasks.py'}") as caught:
        load_task("tasks.py:Mine", tmp_path)
    assert "did you mean 'task.py'?" in (caught.value.hint or "")


def test_a_missing_class_names_the_near_one(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(TaskError, match=r"task\.py has no 'Mien'") as caught:
        load_task("task.py:Mien", tmp_path)
    assert "did you mean 'Mine'?" in (caught.value.hint or "")


def test_text_without_a_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="does not name a task"):
        load_task("task.py", tmp_path)


def test_a_nested_class_and_a_ready_object_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "\nclass Outer:\n    Inner = Mine\n\nready = Mine()\n")
    assert load_task("task.py:Outer.Inner", tmp_path).evaluate(nn.Identity()) == 0.9
    assert load_task("task.py:ready", tmp_path).evaluate(nn.Identity()) == 0.9


def test_a_syntax_error_shows_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, before="x = = 1\n")
    with pytest.raises(TaskError, match="SyntaxError") as caught:
        load(tmp_path)
    assert f"{path}:4: `x = = 1`" in caught.value.message


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, before="import no_such_package_here\n")
    with pytest.raises(TaskError, match="no_such_package_here") as caught:
        load(tmp_path)
    assert f"{path}:4" in caught.value.message
    assert "install the package that provides 'no_such_package_here'" in (caught.value.hint or "")
    assert not [name for name in sys.modules if name.startswith("edgeprune_task_") and name.endswith(str(path))]


def test_files_beside_the_task_can_be_imported_then_and_later(tmp_path: Path) -> None:
    (tmp_path / "beside_one.py").write_text("WIDTH = 5\n")
    (tmp_path / "beside_two.py").write_text("WIDTH = 7\n")
    write(
        tmp_path,
        before="from beside_one import WIDTH\n",
        model="""
            def model(self):
                import beside_two
                return nn.Linear(WIDTH, beside_two.WIDTH)
        """,
    )
    before = list(sys.path)
    model = load(tmp_path).model()
    assert isinstance(model, nn.Linear)
    assert (model.in_features, model.out_features) == (5, 7)
    assert sys.path == before


def test_two_projects_with_the_same_file_name_stay_apart(tmp_path: Path) -> None:
    for name, metric in (("a", 0.25), ("b", 0.75)):
        (tmp_path / name).mkdir()
        write(tmp_path / name, evaluate=f"def evaluate(self, model): return {metric}")
    tasks = [load(tmp_path / name) for name in ("a", "b")]
    assert [task.evaluate(nn.Identity()) for task in tasks] == [0.25, 0.75]


@pytest.mark.parametrize("part", ["model", "example_inputs", "evaluate", "train_batches", "loss"])
def test_what_a_part_raises_shows_the_users_last_line(tmp_path: Path, part: str) -> None:
    arguments = {"evaluate": "self, model", "loss": "self, model, batch"}.get(part, "self")
    broken = f"""
        def {part}({arguments}):
            return helper()
    """
    path = write(tmp_path, before="def helper():\n    return torch.ones(2, 3) @ torch.ones(2, 3)\n", **{part: broken})
    task = load(tmp_path)
    calls = {
        "evaluate": lambda: task.evaluate(nn.Identity()),
        "loss": lambda: task.loss(nn.Identity(), 0),
        "train_batches": lambda: list(task.train_batches()),
    }
    with pytest.raises(TaskError, match=rf"{part}\(\) of task\.py:Mine raised RuntimeError") as caught:
        calls.get(part, getattr(task, part))()
    where = line_of(path, "@ torch.ones")
    assert f"at {where} in helper: `return torch.ones(2, 3) @ torch.ones(2, 3)`" in caught.value.message
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_constructor_that_raises_is_the_users_error(tmp_path: Path) -> None:
    path = write(tmp_path, before="", model="def __init__(self): self.data = {}['images']\n" + GOOD["model"])
    with pytest.raises(TaskError, match="raised KeyError: 'images'") as caught:
        load(tmp_path)
    assert line_of(path, "['images']") in caught.value.message


def test_a_generator_that_raises_in_the_middle_is_guarded(tmp_path: Path) -> None:
    write(
        tmp_path,
        train_batches="""
            def train_batches(self):
                yield torch.ones(1, 3)
                raise OSError("the disk went away")
        """,
    )
    batches = load(tmp_path).train_batches()
    assert torch.equal(next(batches), torch.ones(1, 3))
    with pytest.raises(TaskError, match="the disk went away"):
        next(batches)


def test_a_file_that_ends_the_program_when_it_is_imported_is_the_users_error(tmp_path: Path) -> None:
    path = write(tmp_path, before="import sys\nsys.exit(0)\n")
    with pytest.raises(TaskError, match=r"task\.py cannot be imported: SystemExit: 0") as caught:
        load(tmp_path)
    assert caught.value.exit_code == 2
    assert line_of(path, "sys.exit(0)") in caught.value.message
    (tmp_path / "tasks.py").write_text("raise SystemExit('bye')\n")
    with pytest.raises(TaskError, match="tasks cannot be imported: SystemExit: bye"):
        load_task("tasks:Mine", tmp_path)


@pytest.mark.parametrize("part", ["__init__", "model", "evaluate", "train_batches"])
def test_a_part_that_ends_the_program_is_the_users_error(tmp_path: Path, part: str) -> None:
    generator = "\n    yield" if part == "train_batches" else ""
    path = write(tmp_path, **{part: f"def {part}(self, *arguments):\n    raise SystemExit(0){generator}"})

    def use() -> None:
        task = load(tmp_path)
        task.evaluate(task.model())
        list(task.train_batches())

    with pytest.raises(TaskError, match=r"raised SystemExit: 0") as caught:
        use()
    assert line_of(path, "raise SystemExit(0)") in caught.value.message


def test_an_interrupt_passes_through(tmp_path: Path) -> None:
    write(tmp_path, evaluate="def evaluate(self, model): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path).evaluate(nn.Identity())
