"""PlatformIO packs the library, and builds a project that uses it, with a platform of its own: the host's compiler."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from tests.package.building import call, follow_readme
from tests.package.firmware import MODELS, NAME, blocks, checkers, model_data, packaged

PLATFORM = {
    "name": "host",
    "title": "The host",
    "description": "Its own compiler",
    "version": "1.0.0",
    "license": "Apache-2.0",
    "homepage": "https://example.org",
    "repository": {"type": "git", "url": "https://example.org/host.git"},
    "packages": {},
}
BUILDER = """
from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
env.Replace(PROGSUFFIX="")
Default([env.BuildProgram()])
"""
CLASS = "from platformio.public import PlatformBase\n\n\nclass HostPlatform(PlatformBase):\n    pass\n"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("platformio", tmp_path_factory.mktemp("platformio"))


@pytest.fixture(scope="module")
def pio(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a PlatformIO that has all it needs, SCons by pip: nothing is downloaded or sent."""
    core = tmp_path_factory.mktemp("pio")
    python = checkers() / "python"
    script = "import platformio.dependencies as d; print(d.get_core_dependencies()['tool-scons'])"
    version = call(python, "-c", script).strip().lstrip("~")
    scons = core / "packages" / "tool-scons"
    scons.mkdir(parents=True)
    described = {"name": "tool-scons", "version": version}
    (scons / "package.json").write_text(json.dumps({**described, "description": "SCons"}))
    spec = {"owner": "platformio", "id": None, "name": "tool-scons", "requirements": None, "uri": None}
    (scons / ".piopm").write_text(json.dumps({"type": "tool", **described, "spec": spec}))
    (scons / "scons.py").write_text("from SCons.Script import main\n\nmain()\n")
    never = {"platformio_upgrade": 10**11, "prune_system": 10**11}
    (core / "appstate.json").write_text(json.dumps({"last_version": "9.9.9", "last_check": never}))
    path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
    return {"PLATFORMIO_CORE_DIR": str(core), "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no", "PATH": path}


def test_packs_as_the_readme_has_it(library: Path, pio: dict[str, str]) -> None:
    follow_readme(library, **pio)
    with tarfile.open(library / f"{NAME}.tar.gz") as archive:
        names = set(archive.getnames())
    (library / f"{NAME}.tar.gz").unlink()
    assert {"library.json", "README.md", *(f"src/{name}.c" for name in MODELS)} <= names


def test_project_of_the_readme_has_all_models(library: Path, pio: dict[str, str]) -> None:
    (line,) = blocks(library, "ini")
    platform, project = library.parent / "host", library.parent / "project"
    (platform / "builder").mkdir(parents=True)
    (platform / "platform.json").write_text(json.dumps(PLATFORM))
    (platform / "platform.py").write_text(CLASS)
    (platform / "builder/main.py").write_text(BUILDER)
    (project / "src").mkdir(parents=True)
    (flags,) = re.findall(r"`(build_flags = .*?)`", (library / "README.md").read_text())
    (project / "platformio.ini").write_text(f"[env:host]\nplatform = symlink://{platform}\n{flags}\n{line}")
    includes = "".join(f'#include "{identifier}.h"\n' for identifier in MODELS)
    prints = "".join(f'printf("%lu %d\\n", (unsigned long){i}_size, {i}_data[9]);' for i in MODELS)
    prints += 'printf("%d %lu\\n", GROE_V2_ALIGNMENT, (unsigned long)((size_t)groe_v2_data % 64));'
    (project / "src/main.c").write_text(f"#include <stdio.h>\n{includes}int main(void) {{ {prints} return 0; }}\n")
    said = call(checkers() / "pio", "run", cwd=project, **pio)
    assert f"|-- {NAME} @ 1.2.3" in said
    printed = call(project / ".pio/build/host/program")
    assert printed.splitlines() == [*(f"20001 {model_data(name)[9]}" for name in MODELS), "64 0"]
