"""The staircase of latency over width: in measured values of several runtimes, and on this machine."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from edgeprune.export.micro import micro_model
from edgeprune.measure.cost_cache import timings
from edgeprune.measure.knees import alignment, coarse, refine, steps
from edgeprune.measure.session import Session
from edgeprune.records.operators import ConvSignature, TimingPolicy
from edgeprune.records.profile import DeviceProfile
from edgeprune.targets.local import LocalTarget

WIDTHS = (56, 57, 60, 61, 63, 64, 65, 80, 88)
# µs of a 3×3 convolution C→C on 28×28, one thread
ONNX_RUNTIME = dict(zip(WIDTHS, (303, 428, 313, 475, 480, 304, 519, 538, 714), strict=True))
LITERT = dict(zip(WIDTHS, (368, 364, 375, 390, 403, 411, 622, 784, 839), strict=True))
NCNN = dict(zip(WIDTHS, (186, 213, 228, 244, 270, 213, 235, 311, 388), strict=True))


def test_steps_of_measured_staircases() -> None:
    assert steps(ONNX_RUNTIME) == (64, 65, 80, 88)
    assert steps(NCNN) == (56, 64, 65, 80, 88)
    assert steps(LITERT, noise=0.02) == (57, 60, 61, 64, 65, 80, 88)
    assert steps(LITERT, noise=0.1) == (57, 64, 65, 88)


def test_a_slope_below_the_noise_keeps_some_steps() -> None:
    slope = {width: 100 + 0.01 * width for width in range(1, 1001)}  # 10 % in all, 0.01 % a width
    kept = steps(slope, noise=0.03)
    assert kept[-1] == 1000
    assert 3 <= len(kept) <= 4
    for width, time in slope.items():  # whatever is left out has a step that is not slower beyond noise
        assert any(step >= width and slope[step] <= time * 1.03 for step in kept)


def test_steps_of_little() -> None:
    assert steps({}) == ()
    assert steps({7: 3.0}) == (7,)
    assert steps({7: 3.0, 8: 3.0}) == (8,)


def test_alignment_is_what_costs_nothing() -> None:
    assert alignment(ONNX_RUNTIME) == 16  # 65 to 80 costs 3.7 %, the others nothing
    assert alignment({**ONNX_RUNTIME, 65: 500.0}) == 4  # 7.6 %; 72, to which 8 would round, was not measured
    assert alignment({**ONNX_RUNTIME, 65: 500.0, 72: 505.0}) == 8
    assert alignment(LITERT, noise=0.02) is None
    assert alignment({8: 1.0, 16: 2.0}) is None  # nothing was measured between
    assert alignment({15: 1.0, 16: 2.0}) == 1
    assert alignment({12: 5.0, 15: 6.0, 16: 5.0}) is None  # one multiple alone
    assert alignment({12: 5.0, 15: 6.0, 16: 5.0, 31: 9.0, 32: 8.0}) == 16


def test_coarse_widths() -> None:
    assert coarse(64) == (8, 16, 24, 32, 40, 48, 56, 64)
    assert coarse(10) == tuple(range(1, 11))
    assert coarse(100, least=20) == (24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 100)
    assert coarse(512) == tuple(range(64, 513, 64))
    assert coarse(3, least=2) == (2, 3)


def found_by_refining(stairs: dict[int, float], full: int) -> tuple[dict[int, float], int]:
    times = {width: stairs[width] for width in coarse(full)}
    rounds = 0
    while wanted := refine(times):
        assert not set(wanted) & set(times)
        assert len(wanted) <= 16
        times |= {width: stairs[width] for width in wanted}
        rounds += 1
        assert rounds < 20
    return times, rounds


@pytest.mark.parametrize("block", [4, 8, 16])
def test_refining_finds_the_blocks_of_a_kernel(block: int) -> None:
    stairs = {width: float(-(-width // block)) * block + 10 + 2 * (width % block > 0) for width in range(1, 129)}
    times, rounds = found_by_refining(stairs, 128)
    assert set(steps(times)) <= set(range(block, 129, block))
    assert set(steps(times)) >= set(range(16, 129, 16))
    assert alignment(times) == block
    assert len(times) <= 64
    assert 1 <= rounds <= 6


def test_refining_ends_where_nothing_is_to_be_found() -> None:
    assert refine({8: 5.0, 64: 5.0}) == (63,)
    assert refine({8: 5.0, 63: 5.0, 64: 5.0}) == ()
    assert refine({64: 5.0}) == ()
    flat = dict.fromkeys(coarse(128), 7.0)
    assert set(refine(flat)) <= {127}


SLOW = (57, 58, 59, 61, 62, 63)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the staircase of ONNX Runtime's x86 kernels")
def test_this_machine_has_the_staircase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    conv = {width: ConvSignature(width, width, (28, 28), (3, 3), padding=(1, 1)) for width in (60, 64, *SLOW)}
    with Session(LocalTarget(), DeviceProfile(name="bench")) as session:
        for _ in range(4):  # at load the times say little
            found = timings(session, conv.values(), build=micro_model, timing=TimingPolicy(min_s=0.05))
            times = {width: found[one.key].ns or 0.0 for width, one in conv.items()}
            assert min(times.values()) > 1000
            if max(times[60], times[64]) < 0.95 * min(times[width] for width in SLOW):
                break
        else:
            pytest.fail(f"60 and 64 are not faster than what lies between: {times}")
    assert not set(steps(times)) & set(SLOW)
    assert steps(times)[-1] == 64
    assert alignment(times) in {4, 8, 16, 32, 64}
