"""Every kind of package is the same to the byte, wherever and whenever it is made, and says so of itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgeprune import registry
from tests.package.building import follow_readme
from tests.package.firmware import packaged

PROGRAM = """
import hashlib, json, os, sys, time
from pathlib import Path
from edgeprune import registry
from tests.package.firmware import packaged

os.umask(int(sys.argv[1]))
time.tzset()
found = {}
for kind in registry.names("packagers"):
    folder = packaged(kind, Path(kind).absolute())
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            assert str(folder.parent).encode() not in data, path
            found[f"{kind}/{path.relative_to(folder)}"] = [hashlib.sha256(data).hexdigest(), os.access(path, os.X_OK)]
print(json.dumps(found))
"""


def _digests(folder: Path, umask: int, **variables: str) -> dict[str, list[object]]:
    folder.mkdir()
    root = Path(__file__).parents[2]
    known = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "SOURCE_DATE"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(umask)],
        cwd=folder,
        env=known | {"PYTHONPATH": str(root)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


def test_kinds_do_not_depend_on_place_time_zone_language_or_hash_seed(tmp_path: Path) -> None:
    here = _digests(tmp_path / "here", 0o022, TZ="UTC", LC_ALL="C.UTF-8", PYTHONHASHSEED="1")
    there = _digests(tmp_path / "somewhere else", 0o077, TZ="X-13", LC_ALL="C", PYTHONHASHSEED="2")
    assert here == there
    assert {path.partition("/")[0] for path in here} == set(registry.names("packagers"))


@pytest.mark.parametrize("kind", ["zephyr", "esp-idf", "yocto", "buildroot", "android"])
def test_readme_s_check_of_the_sums_works(kind: str, tmp_path: Path) -> None:
    folder = packaged(kind, tmp_path)
    assert follow_readme(folder) == ""
    with (folder / "manifest.json").open("a") as file:
        file.write(" ")
    with pytest.raises(AssertionError, match=r"manifest\.json: FAILED"):
        follow_readme(folder)
