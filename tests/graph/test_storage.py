"""A .pt2 file that was made to do harm runs nothing."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from edgeprune.errors import CaptureError, StorageError
from edgeprune.graph.capture import capture
from edgeprune.graph.storage import load, save
from tests.graph.models import build


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (Path.touch, (self.target,))


def saved(tmp_path: Path) -> Path:
    model, inputs = build("mlp")
    captured = capture(model, inputs)
    captured.prune(captured.uniform(0.5)).save(tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def rewrite(path: Path, changes: dict[str, bytes]) -> None:
    """Replace the entries whose names end so, and add those that are not there."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(entries)).split("/")[0]
    for end, content in changes.items():
        entries[next((name for name in entries if name.endswith(end)), f"{root}/{end}")] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_pickled_constants_are_refused(tmp_path: Path) -> None:
    path, target = saved(tmp_path), tmp_path / "ran"
    config = {
        "config": {"x": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    rewrite(
        path,
        {
            "model_constants_config.json": json.dumps(config).encode(),
            "data/constants/opaque_obj_0": pickle.dumps(Bomb(target)),
        },
    )
    with pytest.raises(CaptureError, match="holds pickled objects"):
        load(path)
    assert not target.exists()


def test_code_in_the_example_inputs_does_not_run(tmp_path: Path) -> None:
    path, target = saved(tmp_path), tmp_path / "ran"
    buffer = io.BytesIO()
    torch.save({"args": Bomb(target)}, buffer)
    rewrite(path, {"sample_inputs/model.pt": buffer.getvalue()})
    with pytest.raises(CaptureError, match=r"not a readable \.pt2 file"):
        load(path)
    assert not target.exists()


def test_files_that_are_no_archives(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="no such file"):
        load(tmp_path / "none.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(CaptureError, match=r"not a readable \.pt2 file"):
        load(tmp_path / "text.pt2")


def test_nothing_of_the_machine_is_in_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path) as archive:
        text = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".json"))
        assert {name.split("/")[0] for name in archive.namelist()} == {"model"}
    assert b"/graph/models.py" not in text
    assert str(Path(__file__).parent).encode() not in text


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    captured = capture(model, inputs)
    with pytest.raises(StorageError, match="cannot write"):
        captured.prune(captured.uniform(0.5)).save(tmp_path / "nowhere" / "model.pt2")


def test_names_of_inputs_and_outputs_are_kept(tmp_path: Path) -> None:
    model, inputs = build("mlp")
    captured = capture(model, inputs)
    captured.input_names, captured.output_names = ("image",), ("scores",)
    captured.prune(captured.uniform(0.5)).save(tmp_path / "small.pt2")
    save(load(tmp_path / "small.pt2"), tmp_path / "again.pt2")
    again = load(tmp_path / "again.pt2")
    assert (again.input_names, again.output_names) == (("image",), ("scores",))
    assert load(saved(tmp_path)).input_names == ()


@pytest.mark.parametrize(
    "names", ["[]", '{"inputs": ["a", "b"], "outputs": []}', '{"inputs": [1], "outputs": []}', "{"]
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, names: str) -> None:
    path = saved(tmp_path)
    rewrite(path, {"extra/edgeprune-names.json": names.encode()})
    with pytest.raises(CaptureError) as refused:
        load(path)
    assert refused.value.hint
