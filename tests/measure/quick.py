"""Policies for tests: one that takes a second, one that never ends; and what processes are there."""

from __future__ import annotations

import dataclasses

import psutil

from edgeprune.records.profile import DeviceProfile, MeasurementPolicy

QUICK = MeasurementPolicy(warmup_s=0.1, min_s=0.1, max_s=2.0, min_runs=150, ci_share=0.05, memory_workers=1)
LONG = dataclasses.replace(QUICK, min_s=60.0, max_s=60.0, max_runs=10**9)
BOARD = DeviceProfile(name="bench", measurement=QUICK)


def children() -> set[int]:
    """Those that run: a converter of another test may have ended meanwhile, which its next use notices."""
    found = psutil.Process().children(recursive=True)
    return {child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE}
