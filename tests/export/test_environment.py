from __future__ import annotations

import fcntl
import os
import shutil
import sys
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.errors import StorageError, UsageError
from edgeprune.export import environment, environment_setup
from edgeprune.export.environment import ENVIRONMENTS, MARKER, Environment, find, folder_of
from edgeprune.export.environment_setup import SetupError, install, is_current, kept_bytes

TINY = Environment(
    name="tiny",
    brings="a very small tool",
    needs=("tiny-tool",),
    stages=(("tiny-tool",),),
    proof=("tiny_tool",),
    download_bytes=1000,
    disk_bytes=40_000_000,
    newest_python=(3, 99),
)


def wheel(folder: Path, version: str, content: str = "ANSWER = 42\n") -> None:
    """A package of one module, as a wheel."""
    folder.mkdir(exist_ok=True)
    info = f"tiny_tool-{version}.dist-info"
    with zipfile.ZipFile(folder / f"tiny_tool-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_tool/__init__.py", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-tool\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one environment of these tests lies, and a folder `wheels`, the only source of packages."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _offline(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "tiny", TINY)  # type: ignore[misc]  # a dict, that only tests change
    monkeypatch.setattr(Environment, "constraints", property(lambda _: home / "constraints.txt"))
    monkeypatch.setenv("XDG_DATA_HOME", str(home))
    monkeypatch.delenv(TINY.variable, raising=False)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home / "wheels"))
    wheel(home / "wheels", "1.0")
    (home / "constraints.txt").write_text("tiny-tool==1.0\n")


class Lines:
    """Progress that is kept."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.say: Callable[[str], None] = self.steps.append

    def step(self, description: str, total: int | None = None):  # type: ignore[no-untyped-def]
        self.steps.append(description)
        from edgeprune.progress import SILENT

        return SILENT.step(description, total)


def test_an_environment_is_made_once_found_and_used() -> None:
    with pytest.raises(UsageError, match="a very small tool: needs packages in an environment of their own") as caught:
        find("tiny")
    assert "edgeprune doctor --install tiny" in str(caught.value.hint)
    assert "EDGEPRUNE_TINY_PYTHON=" in str(caught.value.hint)
    progress = Lines()
    made, is_new = install("tiny", progress=progress)
    assert is_new
    assert made.versions == {"tiny-tool": "1.0"}
    assert progress.steps[1:] == ["installing tiny-tool", "trying what was installed"]
    found = find("tiny")
    assert (found.python, found.origin) == (folder_of(TINY) / "bin" / "python", "edgeprune doctor")
    assert install("tiny") == (made, False)
    there = sum(path.lstat().st_size for path in folder_of(TINY).rglob("*") if path.is_file() and path.name != MARKER)
    assert kept_bytes(TINY) == there > 1_000_000  # pip alone


def test_what_was_interrupted_is_not_used_and_goes_on() -> None:
    folder = folder_of(TINY)
    (folder / MARKER).unlink()
    with pytest.raises(UsageError, match="not there"):
        find("tiny")
    metadata = next(folder.glob("lib/python*/site-packages/tiny_tool-1.0.dist-info"))
    (metadata / "INSTALLER").unlink()  # pip was killed in the middle of this package
    (metadata.parent / "tiny_tool" / "__init__.py").unlink()
    before = (folder / "pyvenv.cfg").stat().st_mtime_ns
    assert install("tiny")[1]
    assert (metadata.parent / "tiny_tool" / "__init__.py").read_text() == "ANSWER = 42\n"
    assert (folder / "pyvenv.cfg").stat().st_mtime_ns == before  # not begun anew


def test_other_versions_are_installed_in_place(home: Path) -> None:
    wheel(home / "wheels", "2.0")
    (home / "constraints.txt").write_text("tiny-tool==2.0\n")
    assert not is_current(TINY)
    assert find("tiny").versions == {"tiny-tool": "1.0"}  # an older one is still of use
    made, is_new = install("tiny")
    assert is_new
    assert made.versions == {"tiny-tool": "2.0"}
    assert is_current(TINY)


def test_packages_that_do_not_run_are_not_used(home: Path) -> None:
    wheel(home / "wheels", "3.0", "raise RuntimeError('no AVX here')\n")
    (home / "constraints.txt").write_text("tiny-tool==3.0\n")
    with pytest.raises(SetupError, match="do not run here: RuntimeError: no AVX here") as caught:
        install("tiny")
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="not there"):
        find("tiny")


def test_a_package_that_nobody_has_is_named(home: Path) -> None:
    (home / "constraints.txt").write_text("tiny-tool==9.0\n")
    with pytest.raises(SetupError, match=r"pip cannot install tiny-tool: .*tiny-tool") as caught:
        install("tiny")
    assert "edgeprune doctor --install tiny" in str(caught.value.hint)


def test_without_a_network_the_way_out_is_said(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "constraints.txt").write_text("tiny-tool==9.0\n")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    # The port of `discard`: nobody listens there.
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SetupError, match="the package index cannot be reached, to install tiny-tool") as caught:
        install("tiny")
    assert "PIP_NO_INDEX=1 PIP_FIND_LINKS=/folder" in str(caught.value.hint)


def test_one_waits_for_the_other() -> None:
    progress = Lines()
    lock = folder_of(TINY).with_name(".tiny.lock")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread = threading.Thread(target=install, args=("tiny",), kwargs={"progress": progress})
        thread.start()
        while not progress.steps:
            thread.join(0.05)
        assert progress.steps == [f"waiting for another installation in {folder_of(TINY)}"]
    thread.join()
    assert find("tiny").versions == {"tiny-tool": "1.0"}


def test_a_disk_that_is_too_small_is_said_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(environment_setup.shutil, "disk_usage", lambda _: usage._replace(free=10_000_000))
    with pytest.raises(StorageError, match=r"needs 0\.0 GB, 0\.0 GB more than are free there"):
        install("tiny")
    assert not folder_of(TINY).exists()


def test_a_python_without_wheels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Environment(**{**{name: getattr(TINY, name) for name in TINY.__slots__}, "newest_python": (3, 9)})
    monkeypatch.setitem(ENVIRONMENTS, "tiny", old)  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"exist for Python 3\.10 to 3\.9, this is "):
        install("tiny")


def test_a_named_interpreter_comes_first_and_must_have_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_TINY_PYTHON", sys.executable)
    with pytest.raises(UsageError, match=r"EDGEPRUNE_TINY_PYTHON: .* lacks tiny-tool") as caught:
        find("tiny")
    assert f"{sys.executable} -m pip install tiny-tool" in str(caught.value.hint)
    monkeypatch.setenv("EDGEPRUNE_TINY_PYTHON", "/nowhere/python")
    with pytest.raises(UsageError, match="/nowhere/python is no Python that runs"):
        find("tiny")
    monkeypatch.setenv("EDGEPRUNE_TINY_PYTHON", str(folder_of(TINY) / "bin" / "python"))
    assert find("tiny").origin == "EDGEPRUNE_TINY_PYTHON"


def test_an_unknown_environment_is_told_with_the_known() -> None:
    with pytest.raises(UsageError, match="there is no environment 'tflit'") as caught:
        environment.environment("tflit")
    assert str(caught.value.hint).startswith("did you mean 'tflite'?")


def test_all_versions_are_fixed() -> None:
    folder = Path(environment.__file__).with_name("environments")
    for name in sorted({*ENVIRONMENTS} - {"tiny"}):
        lines = [line for line in (folder / f"{name}.txt").read_text().splitlines() if line and line[0] != "#"]
        assert all("==" in line or line.endswith("<0") for line in lines), name
        fixed = {line.partition("==")[0].lower() for line in lines}
        assert {need.lower() for need in ENVIRONMENTS[name].needs} <= fixed, name
