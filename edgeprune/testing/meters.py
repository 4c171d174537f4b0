"""The contract of power meters that the host reads, as tests. Run it on your own:

from edgeprune.testing.meters import MeterContract

class TestMine(MeterContract):
    def make(self) -> Meter:
        return MyMeter(...)
"""

from __future__ import annotations

import math
import time

from edgeprune.measure.meters import Meter

__all__ = ["MeterContract"]


class MeterContract:
    """Subclass it and say how a meter is made that reads, at least ten times a second, while the tests run."""

    def make(self) -> Meter:
        """A new meter, not started."""
        raise NotImplementedError

    def test_samples_are_of_the_time_between_start_and_stop(self) -> None:
        """Unix time and watts, in order; nothing much older than the start, nothing of the future."""
        meter = self.make()
        begin = time.time()
        meter.start()
        time.sleep(1.5)
        samples = meter.stop()
        assert len(samples) >= 5
        times = [moment for moment, _ in samples]
        assert times == sorted(set(times))
        assert begin - 1 <= times[0]
        assert times[-1] <= time.time() + 0.1
        assert times[-1] - times[0] >= 0.5
        assert all(math.isfinite(watts) for _, watts in samples)

    def test_it_can_be_made_and_stopped_again(self) -> None:
        """A run measures many times, each with a meter of its own; one that was not started gives nothing."""
        for _ in range(2):
            meter = self.make()
            meter.start()
            meter.stop()
