"""A gate on a pool of two real devices: the worst one is judged, and none may be missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.export import manifest
from edgeprune.pipeline.check import check
from edgeprune.pipeline.subject import Subject, subject_of
from edgeprune.records.budget import Budget
from edgeprune.records.gate import Gate
from edgeprune.records.gate_policy import Policy
from edgeprune.records.project import DeviceSettings
from edgeprune.testing.sshd import Sshd, sshd_missing
from tests.onnx_models import chain_of_matmuls
from tests.pipeline.small_project import PROFILE

needs_sshd = pytest.mark.skipif(bool(sshd_missing()), reason=sshd_missing())


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    monkeypatch.setenv("EDGEPRUNE_LOCK", str(tmp_path / "lock"))
    (tmp_path / "quick.yaml").write_text(PROFILE)
    manifest.write(chain_of_matmuls(tmp_path / "chain.onnx", width=64, layers=2))
    return subject_of(tmp_path / "chain.onnx")


def gate_of(subject: Subject, *targets: str) -> Gate:
    policy = Policy.of(Budget.parse({"latency": {"p95": "10s"}, "size": "1MB"}))
    profile = str(subject.artifact.path.parent / "quick.yaml")
    return check(subject, policy, device=DeviceSettings(profile=profile, targets=targets))


@needs_sshd
def test_the_worst_device_of_a_pool_is_judged_and_none_may_be_missing(subject: Subject, tmp_path: Path) -> None:
    with Sshd({"EDGEPRUNE_LOCK": str(tmp_path / "other-lock"), "PATH": os.environ["PATH"]}) as server:
        found = gate_of(subject, "local", server.url)
        assert found.status == "passed"
        assert len(found.reading.origin.targets) == 2
        assert found.reading.lower == {}  # of several devices, none
    gone = gate_of(subject, "local", server.url)
    assert [check.is_met for check in gone.checks] == [True, True]  # of the device that is there
    assert (gone.status, gone.exit_code) == ("unknown", 3)
    assert gone.reading.origin.outcome == "LOST"
    assert f"127.0.0.1:{server.port}" in gone.reading.origin.message
    assert gone.reading.origin.targets == ("local",)


def test_a_share_of_a_dense_model_that_nobody_knows(subject: Subject) -> None:
    policy = Policy.of(Budget.parse({"latency": {"p95": "50% of dense"}}))
    with pytest.raises(UsageError, match="relative to the dense model"):
        check(subject, policy, device=None)
    with pytest.raises(UsageError, match="no limit is given"):
        check(subject, Policy.of(Budget()), device=None)
