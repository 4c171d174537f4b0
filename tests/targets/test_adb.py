"""The adb target, by the real `adb` client, against a device that speaks its protocol: the contract and its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.errors import TargetError, UsageError
from edgeprune.targets import adb
from edgeprune.targets.base import Target
from edgeprune.targets.parse import open_target
from edgeprune.testing.targets import TargetContract
from tests.targets.adb_device import AdbDevice, missing
from tests.targets.conftest import skip_or_fail


@pytest.fixture(scope="module")
def device() -> Iterator[AdbDevice]:
    if why := missing():
        skip_or_fail(why)
    with AdbDevice() as device:
        yield device


class TestAdb(TargetContract):
    @pytest.fixture(autouse=True)
    def _device(self, device: AdbDevice) -> None:
        self.url = device.url

    def make(self) -> Target:
        return open_target(self.url)


def refused(url: str) -> TargetError:
    with pytest.raises(TargetError) as caught:
        open_target(url).__enter__()
    return caught.value


def test_device_that_is_not_there(device: AdbDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "_CONNECT_S", 0.5)
    error = refused("adb://R58M0000000")
    assert error.outcome == "LOST"
    assert "not found" in error.message
    assert "adb devices -l" in str(error.hint)
    error = refused("adb://127.0.0.1:1")
    assert (error.outcome, "refused" in error.message) == ("LOST", True)


def test_device_that_does_not_know_this_computer(device: AdbDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adb, "_CONNECT_S", 5)
    with AdbDevice(authorized=False) as locked:
        error = refused(locked.url)
        assert error.outcome == "LOST"
        assert "unauthorized" in error.message
        assert "dialog" in str(error.hint)


def test_device_that_is_too_old() -> None:
    if why := missing():
        skip_or_fail(why)
    with AdbDevice(features="cmd") as old:
        error = refused(old.url)
        assert (error.outcome, error.hint) == ("LOST", "Android 7 or later is needed")


def test_device_without_python() -> None:
    """As Android is: mksh and toybox, nothing else."""
    if why := missing():
        skip_or_fail(why)
    with AdbDevice() as bare:
        error = refused(f"{bare.url}?python=python-of-android")
        assert error.outcome == "NO_RUNTIME"
        assert "?python=" in str(error.hint)
        assert list((bare.folder / "tmp").iterdir()) == []


def test_computer_without_adb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="no adb") as caught:
        open_target("adb://R58M0000000").__enter__()
    assert "apt install adb" in str(caught.value.hint)


@pytest.mark.parametrize("serial", ["", "-d", "a b", "a;id", "$(id)", "a/b", "..", "%2Dd"])
def test_serials_that_adb_could_take_for_something_else(serial: str) -> None:
    with pytest.raises(UsageError, match="serial"):
        open_target(f"adb://{serial}")


def test_options() -> None:
    assert open_target("adb://emulator-5554?python=/data/local/tmp/python3").name == "adb://emulator-5554"
    with pytest.raises(UsageError, match="unknown option 'identity'"):
        open_target("adb://emulator-5554?identity=x")
    with pytest.raises(UsageError, match="identity"):
        open_target("adb://emulator-5554", identity="x")


def test_device_that_goes_away_is_lost() -> None:
    if why := missing():
        skip_or_fail(why)
    with AdbDevice() as device, open_target(device.url) as target:
        channel = target.start(["cat"])
        channel.send(b"x")
        assert channel.receive(20) == b"x"
        device.drop()
        with pytest.raises(TargetError) as caught:
            channel.receive(20)
        assert caught.value.outcome == "LOST"
