"""Operator costs kept on this machine: for one setting alone, through damage, expiry and several writers."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from edgeprune.errors import TargetError
from edgeprune.export.micro import micro_model
from edgeprune.measure.cost_cache import CostCache, cache_folder, timings
from edgeprune.measure.session import Session
from edgeprune.records.operators import LinearSignature, OperatorTiming
from edgeprune.records.profile import DeviceProfile
from edgeprune.targets.local import LocalTarget
from tests.measure.cost_sessions import LINEARS, MACHINE, FakeSession, opened, run


def timing(ns: float = 1000.0, kernel_ns: float | None = 900.0) -> OperatorTiming:
    return OperatorTiming(ns, kernel_ns, ns * 0.9, 40, (ns, ns * 1.05))


def test_what_was_put_is_there_for_the_next(tmp_path: Path) -> None:
    found = {"conv a=1": timing(), "linear b=2": timing(5.0, None)}
    opened(tmp_path).put_all(found, agent_sha256="f00d")
    cache = opened(tmp_path, {**MACHINE, "hostname": "other", "boot_id": "2"})  # the same kind of board
    assert {key: cache.get(key) for key in found} == found
    assert (cache.get("conv a=2"), cache.warnings, len(cache)) == (None, (), 2)
    head, first, _ = map(json.loads, cache.path.read_text().splitlines())
    assert (head["cpu"], head["runtime"], head["threads"], head["cores"]) == ("0xd0b", "onnxruntime", 1, [2, 3])
    assert (first["agent"], abs(first["at"] - time.time()) < 60) == ("f00d", True)
    cache.put_all({"conv a=1": timing(7.0)})
    latest = opened(tmp_path).get("conv a=1")
    assert latest is not None
    assert latest.run_ns == 7.0


@pytest.mark.parametrize(
    "change",
    [{"runtime": "ai-edge-litert"}, {"version": "1.21"}, {"threads": 2}, {"cores": (2,)}, {"cores": "big"}],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_knows_nothing_of_it(tmp_path: Path, change: dict[str, Any]) -> None:
    opened(tmp_path).put_all({"a": timing()})
    other = opened(tmp_path, **change)
    assert other.get("a") is None
    other.path.write_bytes(opened(tmp_path).path.read_bytes())  # even where its lines lie in the wrong file
    assert opened(tmp_path, **change).get("a") is None


@pytest.mark.parametrize("name", ["board", "cpu", "cpus", "arch"])
def test_another_machine_knows_nothing_of_it(tmp_path: Path, name: str) -> None:
    opened(tmp_path).put_all({"a": timing()})
    assert opened(tmp_path, {**MACHINE, name: "other"}).get("a") is None


def test_old_entries_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = opened(tmp_path)
    long_ago = time.time() - 91 * 86400
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: long_ago)
        cache.put_all({"old": timing()})
    cache.put_all({"new": timing()})
    again = opened(tmp_path)
    assert (again.get("old"), again.get("new"), again.warnings) == (None, timing(), ())


def test_damage_costs_only_what_it_hit(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put_all({key: timing() for key in "abcdef"})
    head, *lines = cache.path.read_text().splitlines(keepends=True)
    entry = json.loads(lines[1])
    lines[1] = json.dumps({**entry, "run_ns": -5.0}) + "\n"
    lines[2] = json.dumps({**entry, "key": "c", "medians_ns": [1.0, 2.0]}) + "\n"
    lines[3] = "\0\xff garbage\n"
    lines[4] = "[]\n"
    lines[5] = lines[5][:40]  # killed in mid-line
    cache.path.write_text(head + "".join(lines), encoding="latin-1")
    again = opened(tmp_path)
    assert (again.get("a"), len(again)) == (timing(), 1)
    assert len(again.warnings) == 1
    assert "5 damaged lines" in again.warnings[0]
    again.put_all({"g": timing()})
    assert opened(tmp_path).get("g") == timing()


def test_only_figures_that_can_be_trusted_are_kept(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put_all({"unstable": OperatorTiming(1.0, None, 1.0, 9, (1.0, 1.2)), "failed": OperatorTiming(error="no")})
    assert (len(cache), cache.path.exists()) == (0, False)


def write_many(folder: Path, name: str) -> None:
    cache = opened(folder)
    for number in range(100):
        cache.put_all({f"{name}{number}": timing()})


def test_several_writers_lose_nothing(tmp_path: Path) -> None:
    writers = [
        multiprocessing.get_context("spawn").Process(target=write_many, args=(tmp_path, name)) for name in ("a", "b")
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    cache = opened(tmp_path)
    assert (len(cache), cache.warnings) == (200, ())
    assert cache.path.read_text().count("schema") == 1


def test_a_cache_that_cannot_be_used_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = opened(tmp_path / "file" / "costs")
    cache.put_all({"a": timing()})
    assert cache.get("a") == timing()
    assert ["Not a directory" in text for text in cache.warnings] == [True, True]


def test_it_lies_where_caches_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/caches")
    assert cache_folder() == Path("/var/caches/edgeprune/costs")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ada")
    assert cache_folder() == Path("/home/ada/.cache/edgeprune/costs")


# --- timings


def test_only_what_is_new_is_timed_and_each_batch_is_kept(tmp_path: Path) -> None:
    lost = FakeSession(lost_after=1)
    with pytest.raises(TargetError, match="gone"):
        run(lost, opened(tmp_path), LINEARS)
    kept = len(opened(tmp_path))
    assert kept == len(lost.asked[0]) == 48
    session = FakeSession()
    found = run(session, opened(tmp_path), [*LINEARS, *LINEARS])
    assert list(found) == [one.key for one in LINEARS]
    assert sum(map(len, session.asked)) == 52
    assert run(FakeSession(lost_after=0), opened(tmp_path), LINEARS) == found


def test_a_model_that_ends_the_worker_is_found_and_named() -> None:
    session = FakeSession(deadly="out_features=5 ")
    found = run(session, None, LINEARS[:8])
    errors = {key: one.error for key, one in found.items() if one.error}
    assert errors == {LINEARS[4].key: "OOM: the worker ended"}
    assert [len(asked) for asked in session.asked] == [8, 4, 4, 2, 1, 1, 2]


def test_unstable_timings_are_repeated_once_and_not_kept(tmp_path: Path) -> None:
    assert run(FakeSession(unstable=1), opened(tmp_path), LINEARS[:3])[LINEARS[0].key].stable
    cache = opened(tmp_path / "other")
    found = run(FakeSession(unstable=2), cache, LINEARS[:3])
    assert (found[LINEARS[0].key].run_ns, found[LINEARS[0].key].stable, len(cache)) == (10.0, False, 0)


def test_throttling_is_tried_again_as_the_policy_says() -> None:
    assert run(FakeSession(throttled=1), None, LINEARS[:1])[LINEARS[0].key].stable
    with pytest.raises(TargetError, match="hot"):
        run(FakeSession(throttled=2), None, LINEARS[:1])


def test_with_a_real_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    signatures = [LinearSignature(16, 256, 256), LinearSignature(16, 256, 64)]
    with Session(LocalTarget(), DeviceProfile(name="bench")) as session:
        cache = CostCache.for_session(session)
        assert cache.path.parent == tmp_path / "edgeprune" / "costs"
        for _ in range(5):  # at load the passes may disagree, and are not kept then
            found = timings(session, signatures, cache, build=micro_model)
            if len(cache) == 2:
                break
        again = CostCache.for_session(session)
    wide, narrow = (found[one.key].ns or 0 for one in signatures)
    assert 1.5 * narrow < wide < 12 * narrow
    assert {key: again.get(key) for key in found} == found
