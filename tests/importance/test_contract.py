from __future__ import annotations

import pytest

from edgeprune import registry
from edgeprune.importance.base import Random
from edgeprune.importance.gradient import Taylor
from edgeprune.importance.magnitude import L1, L2, BatchNormScale
from edgeprune.testing.importances import ImportanceContract


class TestL1(ImportanceContract):
    factory = staticmethod(L1)


class TestL2(ImportanceContract):
    factory = staticmethod(L2)


class TestBatchNormScale(ImportanceContract):
    factory = staticmethod(BatchNormScale)


class TestTaylor(ImportanceContract):
    factory = staticmethod(Taylor)


class TestRandom(ImportanceContract):
    factory = staticmethod(Random)


@pytest.mark.parametrize(
    ("name", "kind"), [("l1", L1), ("l2", L2), ("bn_scale", BatchNormScale), ("taylor", Taylor), ("random", Random)]
)
def test_registered_name(name: str, kind: type) -> None:
    assert registry.resolve("importances", name) is kind
