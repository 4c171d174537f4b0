"""The contract of quantisers, as tests. Run it on your own:

from edgeprune.testing.quantizers import QuantizerContract

class TestMine(QuantizerContract):
    factory = staticmethod(MyQuantizer)
    exporter = staticmethod(MyExporter)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgeprune.errors import UsageError
from edgeprune.export.base import Exporter, FloatModel, Quantizer, Scheme
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.records.artifact import Artifact
from edgeprune.testing.importances import SmallNetwork

__all__ = ["QuantizerContract"]

_NEAR = 0.1  # of the outputs' norm: 20 dB


class QuantizerContract:
    """What pipelines rely on. `factory` and `exporter` are of one format, classes or callables without arguments."""

    factory: Callable[[], Quantizer]
    exporter: Callable[[], Exporter]

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, tmp_path_factory: pytest.TempPathFactory) -> FloatModel:
        """A network and its float file."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            module = SmallNetwork().eval()
        inputs = (torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5),)
        exporter = cls.exporter()
        path = tmp_path_factory.mktemp("quantizer") / f"float{exporter.suffix}"
        artifact = exporter.export(module, inputs, path, provenance={"candidate": "0123", "parity_error": 1e-7})
        return FloatModel(module, inputs, artifact)

    def _batches(self) -> list[tuple[Tensor, ...]]:
        generator = torch.Generator().manual_seed(5)
        return [(torch.randn(4, 2, 5, 5, generator=generator),) for _ in range(4)]

    def _made(self, source: FloatModel, folder: Path, scheme: Scheme, name: str = "int8") -> Artifact:
        path = folder / f"{name}{self.exporter().suffix}"
        return self.factory().quantize(source, path, self._batches(), scheme)

    def test_is_a_quantizer_of_the_exporter_s_format(self) -> None:
        assert isinstance(self.factory(), Quantizer)
        assert self.factory().format == self.exporter().format
        keys = [scheme.key for scheme in self.factory().schemes]
        assert keys
        assert len(set(keys)) == len(keys)

    def test_every_scheme_is_near_the_float_network_and_not_it(self, source: FloatModel, tmp_path: Path) -> None:
        (x,) = self._batches()[0]
        with torch.no_grad():
            wanted = source.module(x)
            for scheme in self.factory().schemes:
                artifact = self._made(source, tmp_path, scheme, scheme.key)
                got = RuntimeModule(artifact, source.module, source.example_inputs)(x)
                assert 0 < float((got - wanted).norm() / wanted.norm()) < _NEAR, scheme.key

    def test_says_where_it_comes_from(self, source: FloatModel, tmp_path: Path) -> None:
        scheme = self.factory().schemes[0]
        artifact = self._made(source, tmp_path, scheme)
        data = artifact.path.read_bytes()
        assert (artifact.size_bytes, artifact.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert artifact.format == self.factory().format
        assert artifact.provenance["quantised"] == scheme.name
        assert artifact.provenance["float_sha256"] == source.artifact.sha256
        assert artifact.provenance["candidate"] == "0123"
        assert "parity_error" not in artifact.provenance  # of the float file
        assert [path.name for path in tmp_path.iterdir()] == [artifact.path.name]

    def test_inputs_and_outputs_are_those_of_the_float_file(self, source: FloatModel, tmp_path: Path) -> None:
        artifact = self._made(source, tmp_path, self.factory().schemes[0])
        for mine, floats in ((artifact.inputs, source.artifact.inputs), (artifact.outputs, source.artifact.outputs)):
            assert [(s.name, s.dtype, s.shape) for s in mine] == [(s.name, s.dtype, s.shape) for s in floats]

    def test_same_input_same_bytes(self, source: FloatModel, tmp_path: Path) -> None:
        scheme = self.factory().schemes[-1]
        one, two = (self._made(source, tmp_path, scheme, name) for name in ("one", "two"))
        assert one.sha256 == two.sha256

    def test_batches_that_do_not_fit_are_a_usage_error(self, source: FloatModel, tmp_path: Path) -> None:
        path = tmp_path / f"int8{self.exporter().suffix}"
        with pytest.raises(UsageError):
            self.factory().quantize(source, path, [(torch.zeros(4, 3, 5, 5),)], self.factory().schemes[0])
        assert not path.exists()
