"""The host's side of the protocol against scripted channels: banners, garbage, silence, fragments."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.agent.client import BANNER_LIMIT, LINE_LIMIT, AgentClient
from edgeprune.errors import TargetError

HELLO = {"type": "hello", "edgeprune_agent": 1, "machine": {"cpus": 4}}


class Script:
    """A channel that answers with given blocks, then with silence or its end."""

    def __init__(self, blocks: Sequence[bytes], *, end: bool = True, diagnostics: str = "") -> None:
        self.blocks = list(blocks)
        self.end = end
        self.diagnostics = diagnostics
        self.sent: list[dict[str, Any]] = []
        self.closed = 0

    def send(self, data: bytes) -> None:
        assert data.endswith(b"\n")
        self.sent.append(json.loads(data))

    def receive(self, timeout_s: float) -> bytes:
        if self.blocks:
            return self.blocks.pop(0)
        if self.end:
            return b""
        raise TargetError(f"no answer within {timeout_s} s", outcome="TIMEOUT")

    def close(self) -> None:
        self.closed += 1


def lines(*frames: Any) -> bytes:
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def test_banner_before_the_hello_is_skipped() -> None:
    banner = b'Welcome to the lab!\n{"motd": 1}\n{broken\n\xff\xfe\n\n'
    client = AgentClient(Script([banner, lines(HELLO)]), "board")
    assert client.hello(1)["machine"] == {"cpus": 4}
    client.close()


def test_endless_banner_is_refused() -> None:
    block = b"no agent here\n" * 1000
    channel = Script([block] * (BANNER_LIMIT // len(block) + 2))
    with pytest.raises(TargetError, match="something else than the agent answers: b'no agent here'") as caught:
        AgentClient(channel, "board").hello(1)
    assert caught.value.outcome == "LOST"
    assert caught.value.hint
    assert len(channel.blocks) <= 1  # it was not read on for ever


def test_endless_line_is_refused() -> None:
    channel = Script([b"x" * 65536] * 100)
    with pytest.raises(TargetError, match=f"more than {LINE_LIMIT} bytes"):
        AgentClient(channel, "board").hello(1)
    assert len(channel.blocks) > 50


def test_end_before_the_hello_quotes_stderr() -> None:
    with pytest.raises(TargetError, match="the agent has ended; it said: sh: python3: not found") as caught:
        AgentClient(Script([], diagnostics="sh: python3: not found\n"), "board").hello(1)
    assert caught.value.outcome == "LOST"


def test_other_protocol_is_refused() -> None:
    with pytest.raises(TargetError, match="speaks protocol 99, not 1"):
        AgentClient(Script([lines({**HELLO, "edgeprune_agent": 99})]), "board").hello(1)


def test_busy_names_the_owner_after_waiting() -> None:
    held = {"edgeprune_agent": 1, "holder": {"owner": "ada@lab", "pid": 4711}}
    waited: list[str] = []
    client = AgentClient(Script([lines({"type": "waiting", **held}, {"type": "busy", **held})]), "board")
    with pytest.raises(TargetError, match=r"being measured on by ada@lab \(process 4711\)") as caught:
        client.hello(1, waited.append)
    assert (caught.value.outcome, waited) == ("BUSY", ["ada@lab (process 4711)"])


def test_late_answers_of_an_earlier_request_are_skipped() -> None:
    answers = lines({"type": "samples", "id": 1, "ns": [9]}, {"type": "result", "id": 1, "outcome": "LATE"})
    beats: list[Any] = []
    now = lines(
        {"type": "heartbeat", "id": 2, "stage": "latency"},
        {"type": "samples", "id": 2, "ns": [1, 2]},
        {"type": "samples", "id": 2, "ns": [3]},
        {"type": "result", "id": 2, "outcome": "OK"},
    )
    channel = Script([lines({"type": "result", "id": 1}), answers + now])
    client = AgentClient(channel, "board")
    client.request("first", timeout_s=1)
    reply = client.request("second", timeout_s=1, on_beat=beats.append, model="m.onnx")
    assert (reply.samples_ns, reply.frame["outcome"]) == ((1, 2, 3), "OK")
    assert [beat["stage"] for beat in beats] == ["latency"]
    assert channel.sent == [{"request": "first", "id": 1}, {"request": "second", "id": 2, "model": "m.onnx"}]


@pytest.mark.parametrize("garbage", [b"Segmentation fault\n", b"[1, 2]\n", b'{"type": "result", "id"\n', b"\xff\n"])
def test_garbage_in_an_answer_is_lost(garbage: bytes) -> None:
    with pytest.raises(TargetError, match="garbled") as caught:
        AgentClient(Script([garbage]), "board").request("probe", timeout_s=1)
    assert caught.value.outcome == "LOST"


def test_silence_is_a_timeout() -> None:
    with pytest.raises(TargetError) as caught:
        AgentClient(Script([], end=False), "board").request("probe", timeout_s=1)
    assert caught.value.outcome == "TIMEOUT"


def test_refusal_is_an_error() -> None:
    with pytest.raises(TargetError, match="the agent refused: unknown request"):
        AgentClient(Script([lines({"type": "error", "message": "unknown request"})]), "board").request("x", timeout_s=1)


def test_close_says_goodbye_once() -> None:
    channel = Script([lines(HELLO)])
    client = AgentClient(channel, "board")
    client.hello(1)
    client.close()
    client.close()
    assert channel.sent == [{"request": "bye"}]


def test_pings_keep_the_agent_alive() -> None:
    channel = Script([lines(HELLO)])
    client = AgentClient(channel, "board", ping_s=0.01)
    client.hello(1)
    for _ in range(500):
        if len(channel.sent) > 2:
            break
        client._closed.wait(0.01)
    client.close()
    assert channel.sent[0] == {"request": "ping"}


def test_pings_also_while_the_device_is_busy() -> None:
    class Busy(Script):
        """Says hello only after it has heard a word; the agent itself ends after a silence."""

        def receive(self, timeout_s: float) -> bytes:
            for _ in range(300):
                if self.sent:
                    return lines(HELLO)
                time.sleep(0.01)
            return b""

    client = AgentClient(Busy([]), "board", ping_s=0.01)
    assert client.hello(5)["machine"] == {"cpus": 4}
    client.close()


@settings(max_examples=60, deadline=None)
@given(
    banner=st.lists(st.binary(max_size=40).filter(lambda text: b"\n" not in text), max_size=4),
    samples=st.lists(st.lists(st.integers(1, 10**12), max_size=20), max_size=5),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=30),
)
def test_fragments_do_not_matter(banner: list[bytes], samples: list[list[int]], cuts: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in banner) + lines(
        HELLO,
        *({"type": "samples", "id": 1, "ns": chunk} for chunk in samples),
        {"type": "result", "id": 1},
    )
    blocks, position, turn = [], 0, 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        blocks.append(stream[position : position + size])
        position, turn = position + size, turn + 1
    client = AgentClient(Script(blocks), "board")
    assert client.hello(1) == HELLO
    assert client.request("any", timeout_s=1).samples_ns == tuple(value for chunk in samples for value in chunk)
    client.close()


WORKER = {
    **{name: {"resident": 10, "peak": 20, "anonymous": 5} for name in ("idle", "base", "loaded", "ran")},
    "sampled": {"resident": 15},
    "reset": True,
    "rounding": 4096,
    "peak": 30,
    "inference": None,
}
LATENCY = {"runtime": "onnxruntime", "version": "1", "runs": 3, "warmup_runs": 3, "converged": True, "warm": True}
RESULT = {
    "type": "result",
    "id": 1,
    "outcome": "OK",
    "latency": LATENCY,
    "memory": [{**WORKER, "idle_worker": WORKER}],
    "missing": {},
    "conditions": {"before": {"load": [0.5], "governor": []}, "after": {"swap_used_bytes": None}},
}


def test_the_result_that_the_hostile_ones_differ_from_is_taken() -> None:
    script = Script([lines({"type": "samples", "id": 1, "ns": [3, 4, 5]}, RESULT)])
    reply = AgentClient(script, "board").request("measure", timeout_s=1, policy={"max_runs": 3})
    assert reply.samples_ns == (3, 4, 5)
    assert reply.frame["memory"][0]["peak"] == 30


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        ({"type": "samples", "id": 1, "ns": [5, -5]}, "samples.ns: '-5' is not a whole number from 1"),
        ({"type": "samples", "id": 1, "ns": [0]}, "samples.ns"),
        ({"type": "samples", "id": 1, "ns": [1.5]}, "samples.ns"),
        ({"type": "samples", "id": 1, "ns": [True]}, "samples.ns"),
        ({"type": "samples", "id": 1, "ns": ["7"]}, "samples.ns"),
        ({"type": "samples", "id": 1, "ns": [float("nan")]}, "garbled"),
        ({"type": "samples", "id": 1, "ns": [float("inf")]}, "garbled"),
        ({"type": "samples", "id": 1, "ns": [1 << 63]}, "more than 63 bits"),
        ({"type": "samples", "id": 1, "ns": 7}, "samples.ns"),
        ({"type": "samples", "id": 1}, "'ns' is missing"),
        ({"type": "samples", "id": 1, "ns": [1, 2, 3, 4]}, "more than 3 samples"),
        ({"type": "samples", "id": 2, "ns": [1]}, "request 2, which was not made"),
        ({"type": "power", "id": 1, "ns": [1, 2], "values": [1.0]}, "2 times for 1 values"),
        ({"type": "clock", "id": 1, "ns": None}, "clock.ns"),
        ({"type": "heartbeat", "id": 1, "stage": 5}, "heartbeat.stage"),
        ({"type": "heartbeat", "id": 1, "elapsed_s": "long"}, "heartbeat.elapsed_s"),
        ({"type": "hello", "id": 1, "machine": {}}, "'hello' came after hello"),
        ({"type": "write", "id": 1, "path": "../../etc/passwd"}, "unknown frame 'write'"),
        ({"type": ["result"], "id": 1}, "unknown frame"),
        ({"id": 1}, "unknown frame 'None'"),
        ({"type": "error", "id": 1, "message": {"a": 1}}, "error.message"),
        ({**RESULT, "outcome": "FINE"}, "no outcome"),
        ({**RESULT, "outcome": "LOST", "message": 5}, "message"),
        ({**RESULT, "latency": None}, "latency"),
        ({**RESULT, "latency": {**LATENCY, "runs": -1}}, "latency.runs"),
        ({**RESULT, "latency": {**LATENCY, "converged": "yes"}}, "latency.converged"),
        ({**RESULT, "memory": [{}]}, "memory: 'idle' is missing"),
        ({**RESULT, "memory": [{**WORKER, "idle_worker": WORKER, "peak": -1}]}, "memory.peak"),
        ({**RESULT, "memory": [{**WORKER, "idle_worker": {**WORKER, "base": {"resident": "1"}}}]}, "base.resident"),
        ({**RESULT, "conditions": {"before": {"load": []}}}, "before.load"),
        ({**RESULT, "conditions": ["x"]}, "conditions"),
        ({**RESULT, "missing": {"energy": 7}}, "missing.energy"),
        ({**RESULT, "energy": "much"}, "energy"),
    ],
)
def test_frames_that_cannot_be_are_lost_by_name(frame: dict[str, Any], what: str) -> None:
    script = Script([lines(frame, RESULT)], end=False)
    with pytest.raises(TargetError) as caught:
        AgentClient(script, "board").request("measure", timeout_s=1, policy={"max_runs": 3})
    assert caught.value.outcome == "LOST"
    assert what in caught.value.message
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    "told",
    [
        {},
        {"before": [1, 2], "after": [3, 4], "marks": [[1, 2], [3, 4]]},
        {"missing": "", "sensor": 1, "quantity": "power", "interval_s": 0.1, "failed": {}, "before": [1, 2]},
    ],
)
def test_an_energy_pass_without_what_a_figure_is_made_of_is_lost(told: dict[str, Any]) -> None:
    script = Script([lines({**RESULT, "energy": told})])
    with pytest.raises(TargetError, match="energy") as caught:
        AgentClient(script, "board").request("measure", timeout_s=1, policy={"energy": {"sensors": [{}]}})
    assert caught.value.outcome == "LOST"


def test_a_line_nested_deeply_is_lost() -> None:
    for depth in (50, 100_000):
        script = Script([b'{"a":' + b"[" * depth + b"]" * depth + b"}\n"])
        with pytest.raises(TargetError) as caught:
            AgentClient(script, "board").request("x", timeout_s=1)
        assert caught.value.outcome == "LOST"


def test_a_line_of_ten_megabytes_is_lost_also_where_it_comes_at_once() -> None:
    line = b'{"type": "samples", "id": 1, "ns": [' + b"1," * 5_000_000 + b"1]}\n"
    for blocks in ([line], [line[at : at + 65536] for at in range(0, len(line), 65536)]):
        with pytest.raises(TargetError, match=f"more than {LINE_LIMIT} bytes") as caught:
            AgentClient(Script(blocks), "board").request("x", timeout_s=1)
        assert caught.value.outcome == "LOST"


def test_terminal_escapes_of_the_device_do_not_come_through() -> None:
    script = Script([lines({"type": "error", "id": 1, "message": "\x1b]0;owned\x07 \x9b2J no"})])
    with pytest.raises(TargetError) as caught:
        AgentClient(script, "board").request("x", timeout_s=1)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in caught.value.message)
    assert "no" in caught.value.message


def test_what_the_agent_cannot_do_is_not_asked() -> None:
    script = Script([lines({**HELLO, "requests": ["probe"]})])
    client = AgentClient(script, "board")
    client.hello(1)
    with pytest.raises(TargetError, match="cannot 'measure', only probe"):
        client.request("measure", timeout_s=1)
    client.close()
    assert [message["request"] for message in script.sent] == ["bye"]


def test_frames_before_hello_and_hellos_of_a_wrong_shape_are_lost() -> None:
    for frame, what in (
        ({"type": "result", "edgeprune_agent": 1}, "'result' came before hello"),
        ({"type": "hello", "edgeprune_agent": 1}, "'machine' is missing"),
        ({**HELLO, "machine": {"memory_bytes": -1}}, "memory_bytes"),
        ({**HELLO, "runtimes": {"onnxruntime": "1.2"}}, "runtimes.onnxruntime"),
        ({"type": "busy", "edgeprune_agent": 1, "holder": "me"}, "holder"),
    ):
        with pytest.raises(TargetError, match=what) as caught:
            AgentClient(Script([lines(frame)]), "board").hello(1)
        assert caught.value.outcome == "LOST"


@settings(max_examples=150, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "id", "ns", "outcome", "latency", "memory", "runs", "message"]),
                inner,
                max_size=5,
            )
        ),
        max_leaves=12,
    ).map(
        lambda value: (
            value if isinstance(value, dict) else {"type": "result", "id": 1, "outcome": "OK", "latency": value}
        )
    )
)
def test_no_frame_makes_anything_but_a_target_error(frame: dict[str, Any]) -> None:
    client = AgentClient(Script([lines(frame)]), "board")
    with pytest.raises(TargetError):
        client.request("measure", timeout_s=1)
