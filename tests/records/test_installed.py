"""The shipped profiles are found in a wheel and in an editable install."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeprune.records.profile import profile_names
from edgeprune.records.profile_reader import profile_folder

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import pathlib, edgeprune
from edgeprune.records.profile import load_profile, profile_names
from edgeprune.records.profile_reader import profile_folder
print(pathlib.Path(edgeprune.__file__).resolve().parent)
print(profile_folder())
print(*profile_names())
print(load_profile("raspberry-pi-5").soc)
"""


def run(*arguments: str, **environment: str) -> list[str]:
    # Coverage would count a copy of the package as files of its own.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")} | environment
    done = subprocess.run([sys.executable, *arguments], cwd="/", env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    if not os.environ.get("CI"):
        pytest.importorskip("hatchling", reason="builds the wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("edgeprune-*.whl")
    return path


def test_the_wheel_holds_every_profile(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if name.endswith(".yaml") and "device_profiles" in name}
    assert names == {f"edgeprune/device_profiles/{path.name}" for path in (ROOT / "device_profiles").glob("*.yaml")}
    assert len(names) > len(profile_names())  # the abstract bases go along


def test_a_profile_loads_from_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    package, folder, names, soc = run("-c", PROGRAM, PYTHONPATH=str(tmp_path))
    assert Path(package) == tmp_path.resolve() / "edgeprune"
    assert Path(folder) == tmp_path.resolve() / "edgeprune" / "device_profiles"
    assert tuple(names.split()) == profile_names()
    assert soc == "Broadcom BCM2712"


def test_a_profile_loads_in_a_source_tree() -> None:
    package, folder, names, soc = run("-c", PROGRAM, PYTHONPATH=str(ROOT))
    assert Path(package) == ROOT / "edgeprune"
    assert Path(folder) == ROOT / "device_profiles" == profile_folder()
    assert tuple(names.split()) == profile_names()
    assert soc == "Broadcom BCM2712"


def test_a_profile_loads_from_the_install_that_the_tests_run_in() -> None:
    package, folder, names, soc = run("-c", PROGRAM, PYTHONPATH="")
    assert Path(folder).parent in (Path(package), Path(package).parent)  # a wheel, or an editable install
    assert tuple(names.split()) == profile_names()
    assert soc == "Broadcom BCM2712"
