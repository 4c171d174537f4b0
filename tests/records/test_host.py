"""What a machine says of itself, on recorded machines and on this one."""

import os
import platform
import struct
from pathlib import Path

import pytest

from edgeprune.records import host
from edgeprune.records.profile import CoreCluster, load_profile

PI_4_CORE = """processor\t: {n}
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""
PIXEL_CORE = """processor\t: {n}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: {part}

"""
X86_CORE = """processor\t: {n}
vendor_id\t: GenuineIntel
model name\t: Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz
flags\t\t: fpu sse sse2 pni ssse3 cx16 sse4_1 sse4_2 popcnt lahf_lm movbe xsave avx f16c fma abm bmi1 bmi2 avx2

"""


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_a_raspberry_pi_4(tmp_path: Path) -> None:
    put(
        tmp_path,
        "proc/cpuinfo",
        "".join(PI_4_CORE.format(n=n) for n in range(4)) + "Revision\t: c03115\nModel\t\t: x\n",
    )
    put(tmp_path, "proc/meminfo", "MemTotal:        3884368 kB\nMemFree:          100 kB\n")
    put(tmp_path, "proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.5\0")
    for n in range(4):
        put(tmp_path, f"sys/devices/system/cpu/cpu{n}/cpufreq/cpuinfo_max_freq", "1800000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "48000\n")
    found = host.detect(tmp_path, "aarch64")
    assert found["soc"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert found["cores"] == (CoreCluster(4, "Cortex-A72", 1800.0),)
    assert found["isa"] == "aarch64"
    assert found["features"] == ("asimd",)
    assert found["ram_bytes"] == 3884368 * 1024
    assert [source.name for source in found["throttle_sources"]] == ["thermal_zone"]
    assert "power_sensors" not in found


def test_clusters_are_told_apart(tmp_path: Path) -> None:
    parts = ["0xd05"] * 4 + ["0xd0b"] * 2 + ["0xd44"] * 2
    put(tmp_path, "proc/cpuinfo", "".join(PIXEL_CORE.format(n=n, part=part) for n, part in enumerate(parts)))
    found = host.detect(tmp_path, "aarch64")
    assert found["cores"] == (
        CoreCluster(4, "Cortex-A55"),
        CoreCluster(2, "Cortex-A76"),
        CoreCluster(2, "Cortex-X1"),
    )
    assert found["features"] == ("asimd", "asimddp", "asimdhp", "fphp")


def test_a_core_that_is_not_known_keeps_its_numbers(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", "processor : 0\nCPU implementer : 0x51\nCPU part : 0x804\n")
    assert host.detect(tmp_path, "aarch64")["cores"] == (CoreCluster(1, "implementer 0x51 part 0x804"),)


@pytest.mark.parametrize(
    ("extra", "level"),
    [("", "x86-64-v3"), (" avx512f avx512bw avx512cd avx512dq avx512vl", "x86-64-v4"), (" avx512f", "x86-64-v3")],
)
def test_x86_levels(tmp_path: Path, extra: str, level: str) -> None:
    put(tmp_path, "proc/cpuinfo", "".join(X86_CORE.format(n=n) for n in range(8)).replace(" avx2", f" avx2{extra}"))
    found = host.detect(tmp_path, "x86_64")
    assert found["isa"] == level
    assert found["cores"] == (CoreCluster(8, "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz"),)
    assert "avx2" in found["features"]


def test_a_gap_in_a_lower_level_caps_the_level(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", X86_CORE.format(n=0).replace(" popcnt", ""))
    assert host.detect(tmp_path, "x86_64")["isa"] == "x86-64"
    put(tmp_path, "proc/cpuinfo", X86_CORE.format(n=0).replace(" abm", ""))
    assert host.detect(tmp_path, "x86_64")["isa"] == "x86-64-v2"


def test_sensors_are_found(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/powercap/intel-rapl:0/name", "package-0\n")
    put(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "1\n")
    put(tmp_path, "sys/class/powercap/intel-rapl:0:0/name", "core\n")
    put(tmp_path, "sys/class/powercap/intel-rapl:1/name", "psys\n")  # without an energy_uj that can be read
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "coretemp\n")
    put(tmp_path, "sys/class/hwmon/hwmon1/name", "ina3221\n")
    put(tmp_path, "sys/class/hwmon/hwmon1/in1_label", "VDD_IN\n")
    put(tmp_path, "sys/class/hwmon/hwmon1/in2_label", "VDD_SOC\n")
    put(tmp_path, "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count", "0\n")
    found = host.detect(tmp_path, "x86_64")
    package, psys, chip = found["power_sensors"]
    assert package.rails == ("package-0",)
    assert (package.name, package.kind, package.scope, package.note) == ("rapl", "powercap", "soc", "")
    assert psys.note == "energy_uj cannot be read by this user"
    assert (chip.name, chip.kind, chip.rails) == ("ina3221", "hwmon", ("VDD_IN", "VDD_SOC"))
    assert [source.name for source in found["throttle_sources"]] == ["thermal_throttle"]


def test_a_machine_without_proc_says_what_python_knows(tmp_path: Path) -> None:
    found = host.detect(tmp_path, "arm64")
    assert found["isa"] == "aarch64"
    assert found["bits"] == struct.calcsize("P") * 8
    assert found["cores"][0].count == os.cpu_count()
    assert "ram_bytes" not in found
    assert "soc" not in found


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")
def test_the_host_profile_describes_this_machine() -> None:
    profile = load_profile("host")
    with Path("/proc/cpuinfo").open() as cpuinfo:
        assert profile.core_count == sum(line.startswith("processor") for line in cpuinfo)
    assert profile.ram_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert profile.runtimes["onnxruntime"].startswith("onnxruntime 1.")
    assert profile.bits == struct.calcsize("P") * 8
    assert profile.budget.limits == ()


def test_a_profile_that_extends_host_overrides_what_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nextends: host\nsoc: The fast one\nbudget: {latency: {p50: 1ms}}\n")
    profile = load_profile(path)
    assert profile.soc == "The fast one"
    assert profile.core_count == load_profile("host").core_count
    path.write_text("name: mine\nextends: host\ndetect: false\n")
    assert load_profile(path).core_count is None
