from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.errors import StorageError, UsageError
from edgeprune.records.candidate import Candidate
from edgeprune.records.figures import Figure
from edgeprune.records.trial import Stage, Trial
from edgeprune.search.journal import Journal, read_trials

INPUTS = {"budget": {"size": "4MB"}, "seed": 0, "versions": ["torch", 2]}


def trial(number: int) -> Trial:
    figures = {"size": Figure(1 / 3 + number, 2 / 3 + number)}
    return Trial(number, Stage.MEASURE, Candidate({"conv1": (0, number + 1)}), "OK", figures, seconds=0.1)


def add_trials(journal: Journal, count: int) -> None:
    for number in range(count):
        journal.add(trial(number))


def written(folder: Path, count: int) -> Path:
    with Journal.open(folder, INPUTS) as journal:
        add_trials(journal, count)
    return folder / "journal.jsonl"


def test_trials_come_back_as_they_were(tmp_path: Path) -> None:
    written(tmp_path / "run", 3)
    assert read_trials(tmp_path / "run") == tuple(trial(number) for number in range(3))
    with Journal.open(tmp_path / "run", INPUTS, resume=True) as journal:
        assert journal.trials == tuple(trial(number) for number in range(3))
        journal.add(trial(3))
    assert len(read_trials(tmp_path / "run")) == 4


def test_the_first_line_holds_the_inputs(tmp_path: Path) -> None:
    first = json.loads(written(tmp_path, 1).read_text().splitlines()[0])
    assert first == {"kind": "inputs", "schema": "edgeprune.journal/1", "inputs": INPUTS}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_what_a_kill_leaves_of_the_last_line_is_dropped(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "run"
    path = folder / "journal.jsonl"
    path.unlink(missing_ok=True)
    content = written(folder, 3).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    with Journal.open(folder, INPUTS, resume=True) as journal:
        assert journal.trials == tuple(trial(number) for number in range(max(whole - 1, 0)))
        for number in range(len(journal.trials), 3):
            journal.add(trial(number))
    assert path.read_bytes() == content


def test_zeros_after_a_power_cut_are_a_torn_line(tmp_path: Path) -> None:
    path = written(tmp_path, 2)
    content = path.read_bytes()
    path.write_bytes(content + bytes(100))
    with Journal.open(tmp_path, INPUTS, resume=True) as journal:
        assert len(journal.trials) == 2
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (2, b'{"kind": "trial"', "damaged"),
        (3, b"nonsense", "damaged"),
        (2, b'{"kind": "guess"}', "unknown kind of entry 'guess'"),
        (2, b'{"kind": "trial", "trial": {"schema": "edgeprune.trial/1"}}', "damaged"),
        (2, b'["kind"]', "damaged"),
        (1, b'{"kind": "inputs", "schema": "edgeprune.journal/9", "inputs": {}}', "not the beginning of a journal"),
        (1, b'{"kind": "attempt"}', "not the beginning of a journal"),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_any_other_damage_is_an_error_with_its_line(
    tmp_path: Path, line: int, text: bytes, message: str, resume: bool
) -> None:
    path = written(tmp_path, 3)
    lines = path.read_bytes().splitlines()
    lines[line - 1] = text
    damaged = b"\n".join(lines) + b"\n"
    path.write_bytes(damaged)
    with pytest.raises(StorageError, match=message) as caught:
        Journal.open(tmp_path, INPUTS, resume=resume)
    assert f"journal.jsonl:{line}:" in caught.value.message
    assert path.read_bytes() == damaged


def test_a_missing_line_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2], lines[3]]))
    with pytest.raises(StorageError, match="trial 1 where trial 0 should be"):
        Journal.open(tmp_path, INPUTS, resume=True)


def test_a_trial_out_of_order_is_a_bug_of_the_caller(tmp_path: Path) -> None:
    with Journal.open(tmp_path, INPUTS) as journal, pytest.raises(ValueError, match="trial 1 after 0 trials"):
        journal.add(trial(1))


def test_attempts_are_noted_and_are_no_trials(tmp_path: Path) -> None:
    with Journal.open(tmp_path, INPUTS) as journal:
        journal.add_attempt(0, "THROTTLED", "83 C")
        journal.add(trial(0))
    lines = (tmp_path / "journal.jsonl").read_text().splitlines()
    assert json.loads(lines[1]) == {"kind": "attempt", "number": 0, "outcome": "THROTTLED", "message": "83 C"}
    assert read_trials(tmp_path) == (trial(0),)


def test_a_folder_with_a_run_is_not_begun_again(tmp_path: Path) -> None:
    content = written(tmp_path, 2).read_bytes()
    with pytest.raises(UsageError, match="already holds a run with 2 trials") as caught:
        Journal.open(tmp_path, INPUTS)
    assert "--resume" in str(caught.value.hint)
    assert (tmp_path / "journal.jsonl").read_bytes() == content


def test_a_run_without_trials_may_be_begun_again(tmp_path: Path) -> None:
    written(tmp_path, 0)
    with Journal.open(tmp_path, {"seed": 5}) as journal:
        journal.add(trial(0))
    with Journal.open(tmp_path, {"seed": 5}, resume=True) as journal:
        assert journal.trials == (trial(0),)


def test_other_inputs_are_refused_by_name(tmp_path: Path) -> None:
    written(tmp_path, 1)
    with pytest.raises(UsageError, match="seed was 0, is now 1; strategy was None, is now 'greedy'"):
        Journal.open(tmp_path, {**INPUTS, "seed": 1, "strategy": "greedy"}, resume=True)


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeprune.search.journal import Journal\n"
        f"with Journal.open(Path({str(tmp_path)!r}), {INPUTS!r}):\n"
        "    print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(UsageError, match="another run is working in this folder"):
                Journal.open(tmp_path, INPUTS, resume=True)
        finally:
            holder.kill()
    Journal.open(tmp_path, INPUTS, resume=True).close()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot open the journal"):
        Journal.open(tmp_path / "file" / "run", INPUTS)
    with pytest.raises(StorageError, match="cannot read the journal"):
        read_trials(tmp_path / "none")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False, text=True)
        reason = mounted.stderr
    except FileNotFoundError as error:
        mounted, reason = None, str(error)
    if mounted is None or mounted.returncode != 0:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"cannot mount a small tmpfs: {reason}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_loses_no_finished_trial(small_disk: Path) -> None:
    folder = small_disk / "run"
    filler = small_disk / "filler"
    with Journal.open(folder, INPUTS) as journal:
        filler.write_bytes(bytes(48 * 1024))
        with pytest.raises(StorageError, match="the disk is full") as caught:
            add_trials(journal, 1000)
        finished = len(journal.trials)
    assert str(folder / "journal.jsonl") in caught.value.message
    assert "--resume" in str(caught.value.hint)
    assert caught.value.exit_code == 3
    assert 0 < finished < 1000
    assert read_trials(folder) == tuple(trial(number) for number in range(finished))
    assert (folder / "journal.jsonl").read_bytes().endswith(b"\n")
    filler.unlink()
    with Journal.open(folder, INPUTS, resume=True) as journal:
        journal.add(trial(finished))
    assert len(read_trials(folder)) == finished + 1


def test_after_a_failed_write_the_same_journal_goes_on(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with Journal.open(small_disk / "run", INPUTS) as journal:
        filler.write_bytes(bytes(48 * 1024))
        big = Trial(0, Stage.SCREEN, Candidate(), "OK", {}, message="x" * 20_000)
        with pytest.raises(StorageError, match="the disk is full"):
            journal.add(big)
        filler.unlink()
        journal.add(big)
    assert read_trials(small_disk / "run") == (big,)
