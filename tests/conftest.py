"""What all tests share: in continuous integration a skipped test is a failed one, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling

# The networks of the tests are small: a second thread costs more than it gives. Set before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background lets them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI") == "true"
DATA = Path(os.environ.get("EDGEPRUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_data: needs the data sets of EDGEPRUNE_DATA, which are not shipped")


# What takes minutes goes first, so that no worker is idle at the end while the other is at it; beside the emulated
# board, which takes both cores, what measures nothing.
FIRST = ("tests/board/", "tests/graph/", "tests/pipeline/", "tests/cli/")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with what takes long. Leave out, and count as deselected, what needs data that a fresh clone has not."""
    items.sort(key=_place)
    out = [] if DATA.is_dir() else [item for item in items if item.get_closest_marker("needs_data")]
    if out:
        config.hook.pytest_deselected(items=out)
        items[:] = [item for item in items if item not in out]


def _place(item: pytest.Item) -> int:
    return next((place for place, folder in enumerate(FIRST) if item.nodeid.startswith(folder)), len(FIRST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """A file goes to one worker, in their order, and all tests of the emulated board to the same one: there is one."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "tests/board" if nodeid.startswith("tests/board/") else str(super()._split_scope(nodeid))

    return ByFile(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which is a failure where CI=true: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report: pytest.CollectReport = yield
    if IN_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped as a whole, which is a failure where CI=true: {_reason(report)}"
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The data sets of EDGEPRUNE_DATA; the test is to be marked `needs_data`."""
    return DATA


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """The whole session leaves no child process running but converters that wait for more, which end with it."""
    yield
    if "edgeprune.export.program" in sys.modules:
        sys.modules["edgeprune.export.program"].close_all()
    me = psutil.Process()
    children = me.children(recursive=True)
    _, alive = psutil.wait_procs(children, timeout=5)
    left = [child for child in alive if not _is_helper(child)]
    assert not left, f"processes left behind: {[child.cmdline() for child in left]}"


def _is_helper(process: psutil.Process) -> bool:
    # Python's own resource tracker lives as long as the process that started it.
    return any("resource_tracker" in part for part in process.cmdline())
