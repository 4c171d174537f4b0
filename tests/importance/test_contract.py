from __future__ import annotations

import pytest

from edgeprune import registry
from edgeprune.importance.activation import NonZero, Wanda
from edgeprune.importance.base import Random
from edgeprune.importance.gradient import Fisher, Taylor
from edgeprune.importance.magnitude import L1, L2, BatchNormScale, Lamp
from edgeprune.importance.similarity import GeometricMedian
from edgeprune.testing.importances import ImportanceContract


class TestL1(ImportanceContract):
    factory = staticmethod(L1)


class TestL1OfAllMembers(ImportanceContract):
    factory = staticmethod(lambda: L1(members="all", reduce="max", normalise="size"))


class TestL2(ImportanceContract):
    factory = staticmethod(L2)


class TestLamp(ImportanceContract):
    factory = staticmethod(Lamp)


class TestBatchNormScale(ImportanceContract):
    factory = staticmethod(BatchNormScale)


class TestGeometricMedian(ImportanceContract):
    factory = staticmethod(GeometricMedian)


class TestTaylor(ImportanceContract):
    factory = staticmethod(Taylor)


class TestFisher(ImportanceContract):
    factory = staticmethod(Fisher)


class TestWanda(ImportanceContract):
    factory = staticmethod(Wanda)


class TestNonZero(ImportanceContract):
    factory = staticmethod(NonZero)


class TestRandom(ImportanceContract):
    factory = staticmethod(Random)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("l1", L1),
        ("l2", L2),
        ("lamp", Lamp),
        ("bn_scale", BatchNormScale),
        ("fpgm", GeometricMedian),
        ("taylor", Taylor),
        ("fisher", Fisher),
        ("wanda", Wanda),
        ("apoz", NonZero),
        ("random", Random),
    ],
)
def test_registered_name(name: str, kind: type) -> None:
    assert registry.resolve("importances", name) is kind
