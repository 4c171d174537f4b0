"""Packages for tests, and the programs that build them: a missing one skips the test, which CI counts as a failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from edgeprune.package.base import Contents, Model
from edgeprune.testing.packagers import example_lock

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


def model(identifier: str, data: bytes) -> Model:
    return Model(identifier, example_lock(data), data)


def contents(*models: Model, **options: object) -> Contents:
    return Contents("digits", "1.2.3", models, **options)  # type: ignore[arg-type]


def call(*command: object, cwd: Path | None = None, **environment: str) -> str:
    """What the program says on both streams; it has to end well."""
    words = [str(word) for word in command]
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed (scripts/test installs it as root)")
    known = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        words, cwd=cwd, capture_output=True, text=True, check=False, env=known | environment, timeout=120
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def follow_readme(folder: Path, **environment: str) -> str:
    """Run the commands of README.md as they stand there, in the package's folder; what they say."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert commands, "nothing to follow"
    return call("bash", "-euo", "pipefail", "-c", "\n".join(commands), cwd=folder, **environment)


def needs(programs: Sequence[str]) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (scripts/test installs it as root)")
