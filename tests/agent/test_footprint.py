"""What the agent takes of the device's memory beside the worker that is measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeprune.agent.bundle import write_agent
from edgeprune.agent.device.process import Process, output_of

LIMIT_KIB = 12 * 1024


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or not Path("/proc/self/smaps_rollup").exists(),
    reason="the limit is for Linux and CPython 3.11",
)
def test_the_agent_takes_less_than_12_mib(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-B", str(write_agent(tmp_path))]
    environment = {**os.environ, "EDGEPRUNE_LOCK": str(tmp_path / "lock")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        assert agent.stdout.readline() == b"\n"
        hello = json.loads(agent.stdout.readline())
        for number in range(20):
            agent.stdin.write(b'{"request":"probe","id":%d}\n' % number)
            agent.stdin.flush()
            assert json.loads(agent.stdout.readline())["machine"] == hello["machine"]
        resident = Path(f"/proc/{agent.pid}/smaps_rollup").read_text().partition("Rss:")[2].split()[0]
        agent.stdin.close()
        assert agent.wait(30) == 0
    assert 4 * 1024 < int(resident) < LIMIT_KIB


def gone(process: Process) -> bool:
    return not Path(f"/proc/{process.pid}").exists()


def test_a_program_that_ends_is_reaped_and_its_code_told() -> None:
    process = Process(["/bin/sh", "-c", "read line; echo got $line; exit 3"])
    os.write(process.stdin, b"it\n")
    os.close(process.stdin)
    assert process.wait(30) == 3
    assert os.read(process.stdout, 100) == b"got it\n"
    process.kill()  # nobody else's process by now
    assert (process.returncode, gone(process)) == (3, True)
    os.close(process.stdout)
    os.close(process.stderr)


def test_a_program_that_does_not_end_is_killed() -> None:
    process = Process(["/bin/sleep", "100"])
    assert process.wait(0.05) is None
    process.kill()
    assert (process.returncode, gone(process)) == (-signal.SIGKILL, True)
    for descriptor in (process.stdin, process.stdout, process.stderr):
        os.close(descriptor)


def test_what_cannot_be_started_ends_with_127() -> None:
    process = Process(["/nonexistent"])
    assert process.wait(30) == 127
    for descriptor in (process.stdin, process.stdout, process.stderr):
        os.close(descriptor)


def test_output_of_a_tool() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert output_of(["/bin/sh", "-c", "echo 1; echo 2 >&2; cat"], 30) == "1\n"  # its input is empty
    assert output_of(["/bin/sh", "-c", "echo 1; exit 1"], 30) == ""
    begin = time.monotonic()
    assert output_of(["/bin/sh", "-c", "echo 1; exec sleep 100"], 0.1) == ""
    assert output_of(["/bin/sh", "-c", "exec >&- 2>&-; exec sleep 100"], 0.1) == ""
    assert time.monotonic() - begin < 50
    assert len(list(Path("/proc/self/fd").iterdir())) == before
