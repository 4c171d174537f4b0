"""A real run, and a real browser to open its report in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.pipeline.small_project import PROJECT, write_project

# Coarse, with little training: what the run finds does not matter, but that there are trials enough to look at.
BUDGET = (
    PROJECT.replace("size: 50% of dense", "latency: {p50: 50ms}, size: 50% of dense")
    .replace("round_to: 4, min_width: 4", "round_to: 16, min_width: 16")
    .replace("epochs: 2", "epochs: 1")
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, as the command leaves it."""
    project = write_project(tmp_path_factory.mktemp("project"), BUDGET)
    folder = project.parent / "run"
    command = [sys.executable, "-m", "edgeprune", "run", str(project), "--run-dir", str(folder)]
    # Nobody is kept from measuring for figures that only have to be there.
    environment = {**os.environ, "EDGEPRUNE_LOCK": str(project.parent / "lock")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def result(finished: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((finished / "result.json").read_text())
    return found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no chromium with its driver (Debian: apt install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--no-first-run",
    ):
        options.add_argument(flag)
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with Chrome(options=options, service=Service(driver)) as opened:
        yield opened
