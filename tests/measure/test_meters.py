"""The built-in meters keep the contract that plug-ins are tested with."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeprune.measure.meters import CommandMeter, CsvMeter, Meter
from edgeprune.testing.meters import MeterContract


class TestCommand(MeterContract):
    @pytest.fixture(autouse=True)
    def program(self, tmp_path: Path) -> None:
        self.path = tmp_path / "meter.py"
        self.path.write_text("import time\nwhile True: print('2.5', flush=True); time.sleep(0.05)\n")

    def make(self) -> Meter:
        return CommandMeter(f"{sys.executable} {self.path}")


class TestCsv(MeterContract):
    @pytest.fixture(autouse=True)
    def log(self, tmp_path: Path) -> Iterator[None]:
        self.path = tmp_path / "meter.csv"
        self.path.write_text("time,power_w\n")
        ended = threading.Event()

        def write() -> None:
            with self.path.open("a") as file:
                while not ended.wait(0.05):
                    file.write(f"{time.time():.6f},2.5\n")
                    file.flush()

        writer = threading.Thread(target=write)
        writer.start()
        yield
        ended.set()
        writer.join()

    def make(self) -> Meter:
        return CsvMeter(str(self.path))
