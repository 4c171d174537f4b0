"""Whether a device is of the kind that a profile describes."""

from __future__ import annotations

from typing import Any

import pytest

from edgeprune.errors import UsageError
from edgeprune.records.profile import CoreCluster, DeviceProfile, load_profile
from edgeprune.records.profile_match import check_architecture, differences

PI_4: dict[str, Any] = {
    "arch": "aarch64", "bits": 64, "board": "Raspberry Pi 4 Model B Rev 1.4", "cpu": "0xd08", "cpus": 4,
    "memory_bytes": 3_980_000_000,
}  # fmt: skip
PC: dict[str, Any] = {"arch": "x86_64", "bits": 64, "board": "", "cpu": "AMD EPYC", "cpus": 2, "memory_bytes": 25 << 30}


def test_the_device_of_the_profile_is_accepted() -> None:
    check_architecture(load_profile("raspberry-pi-4b"), PI_4, "ssh://pi@board")
    assert differences(load_profile("raspberry-pi-4b"), PI_4) == ()


def test_another_architecture_is_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match=r"local is not a device of the profile 'raspberry-pi-4b': it is x86_64") as e:
        check_architecture(load_profile("raspberry-pi-4b"), PC, "local")
    assert "--target ssh://user@host" in str(e.value.hint)
    assert "--profile" in str(e.value.hint)
    assert differences(load_profile("raspberry-pi-4b"), PC)[0] == "architecture: x86_64 here, armv8.0-a in the profile"


def test_another_board_of_the_same_architecture_is_told_in_full() -> None:
    zero = load_profile("raspberry-pi-zero-2-w")
    check_architecture(zero, PI_4, "ssh://pi@board")
    assert differences(zero, PI_4) == (
        "processor: Cortex-A72 here, Cortex-A53 in the profile",
        "memory: 3980000000 bytes here, 536870912 in the profile",
    )
    old = {**PI_4, "arch": "armv7l", "bits": 32, "cpus": 2}  # a 32-bit kernel is on the same family of processors
    check_architecture(zero, old, "ssh://pi@board")
    assert [text.partition(":")[0] for text in differences(zero, old)] == [
        "processor", "processors", "userland", "memory",
    ]  # fmt: skip


@pytest.mark.parametrize("isa", ["", "tensilica-lx6"])
def test_what_nobody_knows_is_not_held_against_a_device(isa: str) -> None:
    check_architecture(DeviceProfile("mine", isa=isa), PC, "local")
    check_architecture(DeviceProfile("mine", isa="armv8.0-a"), {"arch": "e2k"}, "local")
    assert differences(DeviceProfile("mine", isa=isa), PC) == ()
    assert differences(DeviceProfile("mine", cores=(CoreCluster(2, "A9"),)), {**PI_4, "cpu": "0xfff", "cpus": 2}) == ()


@pytest.mark.parametrize(
    ("here", "written"),
    [("Intel(R) N100", "Intel N100"), ("0xd08", "cortex-a72"), ("0x004", "Carmel")],
)
def test_a_processor_may_be_written_in_several_ways(here: str, written: str) -> None:
    assert differences(DeviceProfile("mine", cores=(CoreCluster(4, written),)), {"cpu": here, "cpus": 4}) == ()
