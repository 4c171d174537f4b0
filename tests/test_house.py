"""The promises that hold for the package as a whole."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgeprune

ROOT = Path(__file__).parents[1]
HEAVY = ["torch", "onnx", "onnxruntime", "paramiko", "scipy", "numpy", "rich", "sklearn", "yaml"]

PUBLIC = [
    "Artifact",
    "Budget",
    "Candidate",
    "Captured",
    "ChannelGroup",
    "DeviceProfile",
    "EdgepruneError",
    "Measurement",
    "Project",
    "Pruned",
    "Reconstruction",
    "Result",
    "Task",
    "capture",
    "export",
    "load",
    "load_profile",
    "load_project",
    "make_permanent",
    "measure",
    "reconstruct",
    "save",
    "search",
    "sparsify",
    "verify",
]


def python(code: str) -> str:
    """What a fresh interpreter prints, without the coverage tool's start-up in it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    return done.stdout


def test_the_public_names_are_these_and_no_others() -> None:
    assert edgeprune.__all__ == PUBLIC
    assert dir(edgeprune) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    thing = getattr(edgeprune, name)
    assert callable(thing)
    assert inspect.getdoc(thing)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'prune_everything'"):
        edgeprune.prune_everything  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("first", ["edgeprune.export", "edgeprune.pipeline.export", "edgeprune.export.manifest"])
def test_functions_and_packages_of_one_name_live_together(first: str) -> None:
    code = f"""
import {first}
import edgeprune
from edgeprune.pipeline.export import export
from edgeprune import export as public
import edgeprune.export.manifest as manifest
assert public is edgeprune.export and manifest.read and edgeprune.export.manifest is manifest
try:
    public(None, "model.txt")
except Exception as error:
    print(type(error).__name__, error)
"""
    assert python(code) == "UsageError model.txt: no exporter writes .txt\n"


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = json.loads(python("import edgeprune, sys, json; print(json.dumps(sorted(sys.modules)))"))
    assert not set(HEAVY) & set(loaded)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["device", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import json, sys
from edgeprune.cli.main import run_cli
assert run_cli({arguments!r}) == 0
print("\\n" + json.dumps(sorted(sys.modules)))
"""
    loaded = json.loads(python(code).splitlines()[-1])
    assert "click" in loaded
    assert not set(HEAVY) & set(loaded)


def test_help_takes_less_than_a_quarter_of_a_second() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    seconds = []
    for _ in range(10):
        before = os.times()
        subprocess.run(
            [sys.executable, "-m", "edgeprune", "--help"], check=True, env=environment, stdout=subprocess.DEVNULL
        )
        after = os.times()  # of the processor: other programs may be running
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
        if seconds[-1] < 0.25:
            return
    pytest.fail(f"edgeprune --help took {min(seconds):.3f} s at best")


def test_imports_point_downward() -> None:
    code = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", code, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


def test_package_files_hand_nothing_on_by_themselves() -> None:
    """Only the package's own __init__ has content: what a room holds is imported from where it stands."""
    full = [path for path in (ROOT / "edgeprune").rglob("__init__.py") if path.read_text().strip()]
    assert [path for path in full if path != ROOT / "edgeprune/__init__.py" and "graph/rules" not in str(path)] == []


def test_no_module_is_called_utils() -> None:
    assert [p for p in (ROOT / "edgeprune").rglob("*.py") if re.search(r"util|helper|misc|common", p.stem)] == []


def test_the_scripts_name_no_package_index() -> None:
    for path in [*(ROOT / "scripts").glob("*"), ROOT / ".ci/run", ROOT / "pyproject.toml"]:
        if path.is_file():
            assert not re.search(r"https?://|--index-url|--extra-index-url", path.read_text(encoding="utf-8")), path


def test_the_readme_begins_with_the_commands_that_try_it() -> None:
    lines = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    commands = [line for line in lines[:12] if line.startswith("scripts/")]
    assert [command.split()[0] for command in commands] == ["scripts/demo", "scripts/test"]
    for command in commands:
        assert os.access(ROOT / command.split()[0], os.X_OK)


SKIPPED = {
    "test_inside.py": "import pytest\ndef test_it(): pytest.skip('no board')",
    "test_marked.py": "import pytest\n@pytest.mark.skipif(True, reason='no board')\ndef test_it(): ...",
    "test_whole.py": "import pytest\npytest.importorskip('no_such_module_here', reason='no board')",
}


@pytest.mark.parametrize("name", sorted(SKIPPED))
@pytest.mark.parametrize(("ci", "code", "summary"), [("true", 1, "1 (failed|error)"), ("", 0, "1 skipped")])
def test_a_skip_fails_in_continuous_integration_only(
    name: str, ci: str, code: int, summary: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(SKIPPED[name])
    (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "CI": ci},
    )  # fmt: skip
    # Where nothing but a skipped module was found, pytest itself says that no test ran (5).
    assert done.returncode == (5 if name == "test_whole.py" and not ci else 2 if name == "test_whole.py" else code)
    assert re.search(summary, done.stdout)
    assert "no board" in done.stdout
