"""The contract of exporters, as tests. Run it on your own:

    from edgeprune.testing.exporters import ExporterContract

    class TestMine(ExporterContract):
        factory = staticmethod(MyExporter)

The built-in exporters are held to the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgeprune import registry
from edgeprune.errors import StorageError
from edgeprune.export.base import Exporter
from edgeprune.export.runtime_module import RuntimeModule
from edgeprune.records.artifact import Artifact
from edgeprune.testing.importances import SmallNetwork

__all__ = ["ExporterContract"]


class ExporterContract:
    """What pipelines rely on. `factory` is the exporter's class, or any callable without arguments."""

    factory: Callable[[], Exporter]

    def _module(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            return SmallNetwork().eval()

    def _inputs(self) -> tuple[Tensor, ...]:
        return (torch.linspace(-1, 1, 50).reshape(1, 2, 5, 5),)

    def _export(self, folder: Path, name: str = "net", *, batch_dynamic: bool = True) -> Artifact:
        exporter = self.factory()
        path = folder / f"{name}{exporter.suffix}"
        given = {"candidate": "0123"}
        return exporter.export(self._module(), self._inputs(), path, batch_dynamic=batch_dynamic, provenance=given)

    def test_is_an_exporter(self) -> None:
        assert isinstance(self.factory(), Exporter)
        assert self.factory().suffix.startswith(".")

    def test_describes_the_file_that_it_wrote(self, tmp_path: Path) -> None:
        artifact = self._export(tmp_path)
        data = artifact.path.read_bytes()
        assert artifact.format == self.factory().format
        assert artifact.size_bytes == len(data) > 1000
        assert artifact.sha256 == hashlib.sha256(data).hexdigest()
        assert [spec.dtype for spec in (*artifact.inputs, *artifact.outputs)] == ["float32", "float32"]
        assert artifact.inputs[0].shape[1:] == (2, 5, 5)
        assert artifact.outputs[0].shape[1:] == (3,)
        assert artifact.provenance["candidate"] == "0123"

    def test_writes_nothing_else(self, tmp_path: Path) -> None:
        artifact = self._export(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [artifact.path.name]

    def test_fixed_batch_is_the_example_s(self, tmp_path: Path) -> None:
        artifact = self._export(tmp_path, batch_dynamic=False)
        assert artifact.inputs[0].shape == (1, 2, 5, 5)
        assert artifact.outputs[0].shape == (1, 3)

    def test_more_rows_than_the_fixed_batch_are_run_one_by_one(self, tmp_path: Path) -> None:
        artifact = self._export(tmp_path, batch_dynamic=False)
        if artifact.format not in registry.names("runners"):
            return  # nothing here runs it
        module = self._module()
        rows = torch.linspace(-1, 1, 150).reshape(3, 2, 5, 5)
        with torch.no_grad():
            wanted = module(rows)
            found = RuntimeModule(artifact, module, self._inputs())(rows)
        torch.testing.assert_close(found, wanted, rtol=1e-2, atol=1e-3)  # some formats hold weights in 16 bits

    def test_same_module_same_bytes(self, tmp_path: Path) -> None:
        assert self._export(tmp_path, "one").sha256 == self._export(tmp_path, "two").sha256

    def test_tells_nothing_of_the_machine(self, tmp_path: Path) -> None:
        data = self._export(tmp_path).path.read_bytes()
        for private in (str(tmp_path), str(Path.cwd()), str(Path.home()), "SmallNetwork", "forward"):
            assert private.encode() not in data, private

    def test_leaves_the_module_as_it_was(self, tmp_path: Path) -> None:
        module = self._module().train()
        before = {name: value.clone() for name, value in module.state_dict().items()}
        self.factory().export(module, self._inputs(), tmp_path / f"net{self.factory().suffix}")
        assert module.training
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name

    def test_prints_nothing_on_stdout(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self._export(tmp_path)
        assert capfd.readouterr().out == ""

    def test_unwritable_place_is_a_storage_error(self, tmp_path: Path) -> None:
        blocked = tmp_path / "file"
        blocked.write_bytes(b"")
        with pytest.raises(StorageError, match="cannot write"):
            self._export(blocked)
