from __future__ import annotations

from edgeprune.pipeline.executors.base import Executor, OnLost, Plan
from edgeprune.pipeline.executors.local import LocalExecutor
from edgeprune.progress import SILENT
from edgeprune.records.project import ExecutorSettings
from edgeprune.testing.executors import ExecutorContract


class TestContract(ExecutorContract):
    def executor(self, plan: Plan, on_lost: OnLost) -> Executor:
        return LocalExecutor(plan, ExecutorSettings(workers=2), on_lost, SILENT)
