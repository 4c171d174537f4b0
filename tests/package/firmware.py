"""What the tests of firmware packages share: a package of models with odd names, its README, the checkers."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest

from edgeprune.pipeline.package import Options, package
from edgeprune.records.lock import Lock
from edgeprune.testing.packagers import example_lock, locked_run
from tests.package.building import call

LICENCE = "Copyright 2026 Acme\n\nAll rights reserved.\n"
NAME = "spoken-digits"
MODELS = {  # by their identifiers: names with odd characters, a keyword, the same name twice
    "groe_v2": ("Größe (v2)!", ".onnx"),
    "model_class": ("class", ".tflite"),
    "digits": ("digits", ".onnx"),
    "digits_2": ("Digits", ".onnx"),
}
FILES = {identifier: f"{identifier}{suffix}" for identifier, (_, suffix) in MODELS.items()}


def model_data(identifier: str) -> bytes:
    """Bytes that no compressor makes smaller, of an odd number."""
    return random.Random(identifier).randbytes(20_001)


def packaged(kind: str, folder: Path, *, version: str = "1.2.3", licence: bool = True, **changes: object) -> Path:
    """The package `folder`/spoken-digits of four models; `changes` are of their locks."""
    runs = []
    for identifier, (name, suffix) in MODELS.items():
        data = model_data(identifier)
        known: Lock = example_lock(data, file=f"best/model{suffix}", **changes)
        runs.append(f"{name}={locked_run(folder / 'runs' / identifier, data, known)}")
    text = folder / "licence.txt"
    text.write_text(LICENCE)
    options = Options(name="Spoken digits", version=version, licence=text if licence else None)
    package(runs, folder / NAME, kind=kind, options=options)
    return folder / NAME


def blocks(folder: Path, language: str) -> list[str]:
    """The README's code blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (folder / "README.md").read_text(), re.M | re.S)


def checkers() -> Path:
    """The folder of kconfiglib's Python, yamllint, pio, compote and oelint-adv."""
    default = Path(__file__).parents[2] / ".venv-checkers" / "bin" / "python"
    python = Path(os.environ.get("EDGEPRUNE_TEST_CHECKERS", default))
    if not python.is_file():
        pytest.skip("no environment with the checkers of packages: scripts/test makes it (EDGEPRUNE_TEST_CHECKERS)")
    return python.parent


def kconfig(folder: Path, source: str, values: str, **variables: str) -> dict[str, str]:
    """All options of a Kconfig text with these values set, warnings being errors: each with its value."""
    (folder / "Kconfig").write_text(source)
    (folder / "values").write_text(values)
    script = (
        "import json, kconfiglib\n"
        "k = kconfiglib.Kconfig('Kconfig', suppress_traceback=True)\n"
        "k.load_config('values')\n"
        "assert not k.warnings, k.warnings\n"
        "k.write_config('.config')\n"
        "print(json.dumps({s.name: s.str_value for s in k.unique_defined_syms}))\n"
    )
    python = checkers() / "python"
    found: dict[str, str] = json.loads(call(python, "-c", script, cwd=folder, srctree=str(folder), **variables))
    return found
