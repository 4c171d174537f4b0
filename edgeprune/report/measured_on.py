"""What the figures are of, in a line: machine, runtime, threads, profile, target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeprune.records.host import core_name
from edgeprune.records.measurement import Energy, Provenance
from edgeprune.units import format_energy, format_size

__all__ = ["of_energy", "of_provenance", "of_run"]


def of_provenance(provenance: Provenance) -> str:
    """The line of one measurement."""
    return _line(
        {
            **provenance.machine,
            "target": provenance.target,
            "profile": provenance.profile,
            "runtime": provenance.runtime,
            "runtime_version": provenance.runtime_version,
            "threads": provenance.threads,
            "cores": provenance.cores,
        }
    )


def of_energy(energy: Energy) -> str:
    """What the energy was read from, and what it is net of."""
    rails = f": {' + '.join(energy.rails)}" if energy.rails else ""
    note = f"; {energy.note}" if energy.note else ""
    per_run_mj = energy.idle_w * energy.seconds / energy.runs * 1e3
    return (
        f"energy: net of {format_energy(per_run_mj, energy.gross_mj)} that the idle device draws in the same time "
        f"(gross {format_energy(energy.gross_mj)}), {energy.runs} runs in {energy.seconds:.1f} s, read from "
        f"{energy.sensor} ({energy.scope}{rails}) at {energy.rate_hz:.3g} Hz{note}"
    )


def of_run(measured_on: Mapping[str, Any]) -> list[str]:
    """The lines of a run: `measured_on` of its result's provenance, and where the device is not as its profile says."""
    profile = measured_on.get("profile")
    warnings = (f"warning: not as the profile {profile!r} says: {text}" for text in measured_on.get("differences", ()))
    return [_line(measured_on), *warnings]


def _line(data: Mapping[str, Any]) -> str:
    memory = data.get("memory_bytes")
    cpus = data.get("cpus")
    about = [
        _plural(cpus, "processor") if cpus else "",
        f"{format_size(float(memory))} of memory" if memory else "",
        str(data.get("arch") or ""),
    ]
    machine = data.get("board") or core_name(str(data.get("cpu") or "")) or "an unnamed machine"
    parts = [
        f"{machine} ({', '.join(text for text in about if text)})",
        f"{data.get('runtime')} {data.get('runtime_version') or 'of unknown version'}",
        _plural(data.get("threads"), "thread") + _on_cores(data.get("cores")),
        f"profile {data.get('profile')}",
        f"target {data.get('target')}",
    ]
    return f"measured on: {', '.join(parts)}"


def _on_cores(cores: Any) -> str:
    if not cores:
        return ""
    if cores == "big":
        return " on the big cores"
    return f" on core{'' if len(cores) == 1 else 's'} {' and '.join(map(str, cores))}"


def _plural(count: object, name: str) -> str:
    return f"{count} {name}" if count == 1 else f"{count} {name}s"
