"""`edgeprune package` on a run that was really made."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from edgeprune.cli.main import run_cli

HEAVY = {"torch", "onnx", "onnxruntime", "paramiko", "numpy", "scipy"}


def as_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run_cli(["package", *map(str, arguments), "--json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    return data


def test_the_run_has_a_lock_of_what_it_accepted(accepted_run: Path) -> None:
    lock = json.loads((accepted_run / "edgeprune.lock").read_text())
    result = json.loads((accepted_run / "result.json").read_text())
    artifact = accepted_run / lock["artifact"]["file"]
    assert lock["artifact"]["sha256"] == hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert lock["artifact"]["file"] == result["provenance"]["files"]["artifact"]
    assert lock["figures"] == result["best"]["figures"]
    assert lock["budget"] == result["budget"]
    assert lock["inputs"]["model"] == result["provenance"]["inputs"]["model"]
    text = (accepted_run / "edgeprune.lock").read_text()
    assert str(accepted_run) not in text
    assert str(Path.home()) + "/" not in text


def test_says_what_was_written(accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["package", str(accepted_run), "--for", "c", "-o", str(tmp_path / "out")]) == 0
    first = capsys.readouterr().out
    assert run_cli(["package", str(accepted_run), "--for", "c", "-o", str(tmp_path / "out")]) == 0
    second = capsys.readouterr().out
    assert "10 files, 10 of them written; README.md says how to use it" in first
    assert "10 files, nothing had changed;" in second
    assert "removed" not in first + second
    before = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run_cli(["package", str(accepted_run), "--for", "tar", "-o", str(tmp_path / "out")]) == 0
    gone = len(before - set((tmp_path / "out").rglob("*")))
    assert gone >= 5
    assert f", {gone} files of the package that was there before removed;" in capsys.readouterr().out
    assert run_cli(["package", str(accepted_run), "--for", "tar", "-o", str(tmp_path / "out"), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_json_names_every_file(accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys, accepted_run, "--for", "cmake", "-o", tmp_path / "out", "--name", "Key words")
    assert data["name"] == "key-words"
    assert [model["identifier"] for model in data["models"]] == ["key_words"]
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == set(data["files"])
    for path, digest in data["files"].items():
        assert hashlib.sha256((tmp_path / "out" / path).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("form", ["package", "package.tar.gz"])
def test_two_clones_give_the_same_bytes_at_different_times(accepted_run: Path, tmp_path: Path, form: str) -> None:
    """In folders of other names, as another user would have them, a day apart, with another umask and locale."""
    found = []
    for name, clock, mask in (("here", "0", 0o022), ("some where/else", "-86400", 0o077)):
        clone = tmp_path / name / accepted_run.name
        shutil.copytree(accepted_run, clone, ignore=shutil.ignore_patterns("trials"))
        for path in clone.rglob("*"):
            os.utime(path, (1_000_000_000 + int(clock), 1_000_000_000 + int(clock)))
        environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("COV", "SOURCE_DATE"))},
            "TZ": f"X{int(clock) // 86400}",
            "HOME": str(tmp_path / name),
            "PYTHONHASHSEED": str(mask),
        }
        code = f"import os, sys; os.umask({mask}); from edgeprune.cli.main import main; main()"
        command = [sys.executable, "-c", code, "package", accepted_run.name, "--for", "cmake", "-o", form]
        subprocess.run(command, cwd=clone.parent, env=environment, check=True, capture_output=True, timeout=60)
        out = clone.parent / form
        files = [out] if out.is_file() else sorted(path for path in out.rglob("*") if path.is_file())
        found.append({path.relative_to(out).as_posix(): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert found[0]


@pytest.mark.parametrize("options", [[], ["--locked", "--offline"]])
def test_no_torch_and_nothing_heavy_is_loaded(accepted_run: Path, tmp_path: Path, options: list[str]) -> None:
    command = ["package", str(accepted_run), "--for", "cmake", "-o", str(tmp_path / "out"), "--quiet", *options]
    code = f"""
import json, sys
from edgeprune.cli.main import run_cli
assert run_cli({command!r}) == 0
print(json.dumps(sorted(sys.modules)))
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=60
    )
    loaded = set(json.loads(done.stdout))
    assert "edgeprune.package.cmake" in loaded
    assert not HEAVY & loaded


def test_only_the_lock_and_the_artifact_are_read(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("edgeprune.lock", "best/model.onnx"):
        (tmp_path / "bare" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(accepted_run / name, tmp_path / "bare" / name)
    data = as_json(capsys, tmp_path / "bare", "--for", "c", "-o", tmp_path / "out", "--locked", "--offline")
    whole = as_json(capsys, accepted_run, "--for", "c", "-o", tmp_path / "whole")
    assert data["files"] == whole["files"]


def test_a_run_without_a_lock_gets_one_unless_locked(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(accepted_run, clone, ignore=shutil.ignore_patterns("trials"))
    lock = (clone / "edgeprune.lock").read_bytes()
    (clone / "edgeprune.lock").unlink()
    command = ["package", str(clone), "--for", "c", "-o", str(tmp_path / "out")]
    assert run_cli([*command, "--locked"]) == 2
    assert "there is no lock" in capsys.readouterr().err
    assert run_cli(command) == 0
    assert (clone / "edgeprune.lock").read_bytes() == lock


def test_a_project_stands_for_its_latest_run_unless_locked(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = accepted_run.parents[1]
    named = as_json(capsys, f"words={project}", "--for", "c", "-o", tmp_path / "out")
    assert [model["identifier"] for model in named["models"]] == ["words"]
    assert run_cli(["package", str(project), "--for", "c", "-o", str(tmp_path / "other"), "--locked"]) == 2
    assert "there is no lock" in capsys.readouterr().err


def test_the_pruned_network_computes_in_c_what_it_computes_in_python(accepted_run: Path, tmp_path: Path) -> None:
    from tests.package.c_runtime import in_c, in_python

    command = ["package", str(accepted_run), "--for", "c", "--name", "net", "-o", str(tmp_path / "package")]
    assert run_cli(command) == 0
    lock = json.loads((accepted_run / "edgeprune.lock").read_text())
    shape = [1 if isinstance(size, str) else size for size in lock["artifact"]["inputs"][0]["shape"]]
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    expected = in_python((accepted_run / lock["artifact"]["file"]).read_bytes(), image)
    assert np.ptp(expected) > 0.1
    np.testing.assert_array_equal(in_c(tmp_path / "package", "net", image, tmp_path / "program"), expected)


def test_the_published_schema_fits_what_is_written(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["package", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    as_json(capsys, accepted_run, "--for", "tar", "-o", tmp_path / "out")
    jsonschema.Draft202012Validator(schema).validate(json.loads((tmp_path / "out/manifest.json").read_text()))


def test_hints_can_be_copied_into_a_shell(
    accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project, run = tmp_path / "my project", tmp_path / "my run"
    shutil.copytree(accepted_run.parents[1], project, ignore=shutil.ignore_patterns("runs"))
    assert run_cli(["package", str(project), "--for", "c", "-o", str(tmp_path / "out")]) == 2
    assert f"hint: start one: edgeprune run '{project}'\n" in capsys.readouterr().err
    run.mkdir()
    result = json.loads((accepted_run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "status": "infeasible"}))
    assert run_cli(["package", str(run), "--for", "c", "-o", str(tmp_path / "out")]) == 2
    assert f"hint: see why: edgeprune report '{run}'\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([".", "--for", "c"], "Missing option '-o'"),
        (["--for", "c", "-o", "x"], "Missing argument"),
        ([".", "--for", "rpm", "-o", "x"], "unknown packager 'rpm'"),
        ([".", "--for", "c", "-o", "x", "-MT", "y"], "there is no file for it"),
        (["nowhere", "--for", "c", "-o", "x"], "there is no edgeprune.lock in nowhere"),
    ],
)
def test_wrong_calls(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_cli(["package", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "hint: " in error
    assert list(tmp_path.iterdir()) == []
