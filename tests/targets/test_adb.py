"""The adb target, by the real `adb` client, against a device that speaks its protocol: the contract and its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
