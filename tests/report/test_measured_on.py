"""What a measurement is told to be of."""

from __future__ import annotations

from edgeprune.records.measurement import Energy
from edgeprune.report.measured_on import of_energy


def test_the_line_on_energy() -> None:
    energy = Energy(
        100.0, 60.0, "ina3221", "module", 101, rails=("VDD_IN",), note="the whole module", rate_hz=10.02, runs=500,
        seconds=10.0, idle_w=2.0,
    )  # fmt: skip
    assert of_energy(energy) == (
        "energy: net of 40 mJ that the idle device draws in the same time (gross 100 mJ), 500 runs in 10.0 s, "
        "read from ina3221 (module: VDD_IN) at 10 Hz; the whole module"
    )
