"""Several devices judged together: real ones behind two sshd, and scripted ones for each way to fall out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edgeprune.errors import TargetError, UsageError
from edgeprune.measure.pool import Pool, differing, judged
from edgeprune.measure.session import Session
from edgeprune.records.artifact import Artifact
from edgeprune.records.figures import Figure
from edgeprune.records.measurement import Latency, Measurement, Outcome
from edgeprune.records.profile import DeviceProfile, MeasurementPolicy
from edgeprune.targets.parse import open_target
from edgeprune.testing.sshd import Sshd, sshd_missing

QUICK = DeviceProfile(
    name="bench",
    measurement=MeasurementPolicy(warmup_s=0.05, min_s=0.05, max_s=1.0, min_runs=150, ci_share=0.2, memory_workers=0),
)
PI = {"arch": "aarch64", "bits": 64, "board": "Pi", "cpu": "A72", "cpus": 4, "memory_bytes": 4_000_000_000}


class Lines:
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def step(self, description: str, total: int | None = None) -> Any:
        return contextlib.nullcontext(SimpleNamespace(advance=lambda *_: None))


class Scripted:
    """A session that gives latencies (ms) or outcomes in turn."""

    def __init__(self, name: str, answers: Sequence[float | Outcome], machine: Any = None, error: Any = None) -> None:
        self.target = SimpleNamespace(name=name)
        self.policy = QUICK.measurement
        self.runtimes = {"onnxruntime": {"version": "1"}}
        self.machine = PI if machine is None else machine
        self.answers = list(answers)
        self.error = error
        self.open = False
        self.connected = True

    def __enter__(self) -> Any:
        if self.error:
            raise self.error
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.open = False

    def measure(self, artifact: Artifact) -> Measurement:
        answer = self.answers.pop(0)
        if isinstance(answer, Outcome):
            return Measurement(artifact.sha256, answer, None, message=f"it was {answer.value}")
        latency = Latency(200, answer, 0, answer, answer, {"p50": answer}, {"p50": answer}, {"p50": answer * 1.1})
        return Measurement(artifact.sha256, Outcome.OK, None, latency=latency)


def pool(*sessions: Scripted, **options: Any) -> Pool:
    return Pool(cast("list[Session]", list(sessions)), **options)


def p50(devices: Pool, artifact: Artifact) -> tuple[float | None, float | None]:
    figure = devices.measure(artifact).figures(artifact, None)["latency.p50"]
    return figure.value, figure.upper


def test_the_worst_device_is_judged_figure_by_figure() -> None:
    devices = {
        "a": {"latency.p50": Figure(3.0, 3.5), "peak_memory": Figure(10.0, 11.0)},
        "b": {"latency.p50": Figure(2.0, 4.0), "peak_memory": Figure(20.0, 21.0)},
    }
    found = judged(devices, "worst")
    assert found["latency.p50"] == Figure(3.0, 4.0)
    assert found["peak_memory"] == Figure(20.0, 21.0)


@pytest.mark.parametrize(("count", "value"), [(1, 1.0), (9, 9.0), (10, 9.0), (11, 10.0), (20, 18.0), (30, 27.0)])
def test_p90_is_by_nearest_rank(count: int, value: float) -> None:
    devices = {str(n): {"x": Figure(float(n), float(n))} for n in range(1, count + 1)}
    assert judged(devices, "p90")["x"] == Figure(value, value)


def test_what_a_device_does_not_tell_is_worse_than_any_value() -> None:
    devices = {"a": {"energy": Figure(3.0, 3.0)}, "b": {"energy": Figure(None, missing="no sensor")}}
    assert judged(devices, "worst")["energy"] == Figure(None, missing="b: no sensor")
    ten = {str(n): {"energy": Figure(float(n), None)} for n in range(9)} | {"b": devices["b"]}
    assert judged(ten, "p90")["energy"] == Figure(8.0, None)


def test_all_are_measured_and_the_worst_counts(small: Artifact) -> None:
    with pool(Scripted("a", [2.0]), Scripted("b", [5.0]), Scripted("c", [3.0])) as devices:
        assert p50(devices, small) == (5.0, pytest.approx(5.5))
        assert devices.left_out == {}


def test_an_unhealthy_device_is_left_out_with_a_warning(small: Artifact) -> None:
    lines = Lines()
    away = Scripted("away", [], error=TargetError("cannot reach it", outcome="LOST"))
    hot = Scripted("hot", [])

    def check(session: Session) -> None:
        if session.target.name == "hot":
            raise TargetError("too hot", outcome="THROTTLED")

    with pool(Scripted("a", [2.0]), away, hot, check=check, progress=lines) as devices:
        assert p50(devices, small)[0] == 2.0
        assert devices.left_out == {"away": "cannot reach it", "hot": "too hot"}
    assert not hot.open
    assert lines.said == [
        "warning: away is left out: cannot reach it",
        "warning: hot is left out: too hot",
    ]


def test_all_gone_at_the_start_is_an_error_with_exit_code_3() -> None:
    gone = [Scripted(name, [], error=TargetError("no route", outcome="LOST")) for name in "ab"]
    with (
        pytest.raises(TargetError, match="no device of the pool is left: a: no route; b: no route") as caught,
        pool(*gone),
    ):
        pass
    assert (caught.value.exit_code, caught.value.outcome) == (3, "LOST")


def test_a_device_that_is_lost_twice_is_left_out_and_one_lost_once_is_not(small: Artifact) -> None:
    lost, back = Scripted("lost", [1.0, Outcome.LOST, Outcome.LOST]), Scripted("back", [1.5, Outcome.LOST, 4.0])
    with pool(lost, back, Scripted("c", [2.0, 3.0])) as devices:
        assert p50(devices, small)[0] == 2.0
        assert p50(devices, small)[0] == 4.0
        assert devices.left_out == {"lost": "it was LOST"}
        assert not lost.open
    assert not back.open


def test_all_lost_in_mid_run_is_an_error_and_stays_one(small: Artifact) -> None:
    with pool(*(Scripted(name, [Outcome.LOST] * 2) for name in "ab")) as devices:
        for _ in range(2):
            with pytest.raises(TargetError, match="no device of the pool is left"):
                devices.measure(small)


def test_relative_limits_do_not_outlive_the_device_that_they_rest_on(small: Artifact) -> None:
    for slow, outcome in ((9.0, Outcome.LOST), (1.0, Outcome.OK)):
        lost = Scripted("lost", [slow, Outcome.LOST, Outcome.LOST])
        with pool(lost, Scripted("b", [2.0, 1.0]), relative=frozenset({"latency.p50"})) as devices:
            devices.measure(small)
            found = devices.measure(small)
            assert found.outcome is outcome
            if outcome is Outcome.LOST:
                assert "latency.p50 is relative to the dense model" in found.message
                assert found.figures(small, None)["latency.p50"].value is None
                assert found.chosen  # has a record to write


def test_out_of_memory_on_one_is_so_for_the_worst_and_not_for_p90_of_ten(small: Artifact) -> None:
    for judge, outcome in (("worst", Outcome.OOM), ("p90", Outcome.OK)):
        sessions = [Scripted(str(n), [1.0]) for n in range(9)]
        with pool(Scripted("small", [Outcome.OOM]), *sessions, judge=judge) as devices:
            assert devices.measure(small).outcome is outcome


def test_a_failure_that_is_no_loss_is_the_outcome_of_all(small: Artifact) -> None:
    with pool(Scripted("a", [1.0]), Scripted("b", [Outcome.THROTTLED])) as devices:
        found = devices.measure(small)
        assert (found.outcome, found.message) == (Outcome.THROTTLED, "b: it was THROTTLED")
        assert devices.left_out == {}


def test_a_resumed_run_leaves_out_what_it_did_not_begin_with(small: Artifact) -> None:
    with pool(Scripted("a", [2.0]), Scripted("new", [9.0])) as devices:
        devices.known({"a": {"latency.p50": 3.0}})
        assert devices.left_out == {"new": "the run began without it"}
        assert p50(devices, small)[0] == 2.0


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"arch": "armv7l"}, "arch: 'armv7l', not 'aarch64'"),
        ({"board": "Pi 5"}, "board: 'Pi 5', not 'Pi'"),
        ({"memory_bytes": 2_000_000_000}, "memory: 2000 MB, not 4000 MB"),
        ({"cpus": 2}, "cpus: 2, not 4"),
    ],
)
def test_devices_of_two_kinds_are_refused_by_what_differs(change: dict[str, Any], text: str) -> None:
    sessions = Scripted("a", []), Scripted("b", [], {**PI, **change})
    with pytest.raises(UsageError, match=f"b is of another kind than a: {text}"), pool(*sessions):
        pass
    assert not any(session.open for session in sessions)


def test_a_little_less_memory_is_the_same_kind() -> None:
    assert differing(PI, {**PI, "memory_bytes": 3_900_000_000}) == []


def test_a_device_named_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="named twice: a, a"), pool(Scripted("a", []), Scripted("a", [])):
        pass


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[Sshd]]:
    if missing := sshd_missing():
        pytest.skip(missing)
    with Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "1")}) as one, Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "2")}) as two:
        yield [one, two]


def test_two_real_devices_of_which_one_goes_away(servers: list[Sshd], small: Artifact) -> None:
    sessions = [Session(open_target(server.url), QUICK, reconnect_s=0) for server in servers]
    with Pool(sessions) as devices:
        first = devices.measure(small)
        assert first.outcome is Outcome.OK
        medians = [part.latency.percentile_ms["p50"] for part in first.parts.values() if part.latency]
        assert len(medians) == 2
        assert first.figures(small, None)["latency.p50"].value == max(medians)
        servers[1].stop()
        second = devices.measure(small)
        assert second.outcome is Outcome.OK
        assert list(second.parts) == [sessions[0].target.name]
        assert list(devices.left_out) == [sessions[1].target.name]
