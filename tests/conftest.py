"""What all tests share: in continuous integration a skipped test is a failed one, and nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

IN_CI = os.environ.get("CI") == "true"
DATA = Path(os.environ.get("EDGEPRUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_data: needs the data sets of EDGEPRUNE_DATA, which are not shipped")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out, and count as deselected, what needs data that a fresh clone cannot have."""
    if DATA.is_dir():
        return
    out = [item for item in items if item.get_closest_marker("needs_data")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure where CI=true: {report.longrepr[2]}"
    return report


@pytest.fixture
def data_folder() -> Path:
    """The data sets of EDGEPRUNE_DATA; mark the test with `needs_data`."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The whole session leaves no child process running."""
    psutil = pytest.importorskip("psutil")
    yield
    me = psutil.Process()
    children = me.children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=5)
    trackers = [child for child in alive if _is_helper(child)]
    left = [child for child in alive if child not in trackers]
    assert not left, f"processes left behind: {[child.cmdline() for child in left]}"


def _is_helper(process: object) -> bool:
    # Python's own resource tracker lives as long as the process that started it.
    return any("resource_tracker" in part for part in process.cmdline())  # type: ignore[attr-defined]
