"""The contract of packagers, as tests. Run it on your own:

    from edgeprune.testing.packagers import PackagerContract

    class TestMine(PackagerContract):
        factory = staticmethod(MyPackager)

The built-in packagers are held to the same. `locked_run` makes a run's folder of any file, for tests of one's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from edgeprune.package.base import Contents, File, Model, Packager
from edgeprune.package.build import COMMON, build
from edgeprune.package.checksums import SUMS, verify_sums
from edgeprune.package.write import write_folder
from edgeprune.records import lock
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.figures import Figure
from edgeprune.records.lock import Lock

__all__ = ["PackagerContract", "example_lock", "locked_run"]

_INPUT = TensorSpec("image", "int8", ("batch", 1, 8, 8), scale=0.0039215689, zero_point=-128)
_OUTPUT = TensorSpec("class", "float32", ("batch", 10))
_LICENCE = "Licence of the model\n\nDo good with it: naïvely.\n"


def example_lock(data: bytes, *, file: str = "best/model.onnx", **changes: object) -> Lock:
    """A lock of a file with this content: one quantised input, one output, everything measured but energy."""
    suffix = PurePosixPath(file).suffix
    known = Lock(
        name="Digits",
        candidate="0123456789abcdef",
        artifact=Artifact(
            path=Path(file),
            format={".pte": "executorch"}.get(suffix, suffix[1:]),
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            inputs=(_INPUT,),
            outputs=(_OUTPUT,),
            provenance={"exporter": "a test"},
        ),
        budget={"latency": {"p50": "30ms"}},
        figures={
            "accuracy": Figure(0.915, 0.915),
            "latency.p50": Figure(12.5, 12.75),
            "peak_memory": Figure(1_000_000.0, 1_048_576.0),
            "size": Figure(float(len(data)), float(len(data))),
            "energy": Figure(None, missing="no power sensor"),
        },
        device={"profile": "raspberry-pi-4b", "board": "Raspberry Pi 4 Model B", "runtime": "onnxruntime"},
        inputs={"model": "a" * 64, "settings": "b" * 64, "source/task.py": "c" * 64},
        versions={"edgeprune": "0.1.0", "torch": "2.13.0"},
        params=1234,
        macs=56789,
        activation_bytes=4096,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def locked_run(folder: Path, data: bytes, known: Lock | None = None) -> Path:
    """A run's folder as far as packaging sees it: edgeprune.lock and the artifact."""
    known = known or example_lock(data)
    file = folder / known.artifact.path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    (folder / lock.FILE).write_text(json.dumps(lock.to_json(known), indent=2, sort_keys=True) + "\n")
    return folder


class PackagerContract:
    """What `edgeprune package` relies on. `factory` is the packager's class, or any callable without arguments."""

    factory: Callable[[], Packager]

    def _contents(self, *identifiers: str, **changes: object) -> Contents:
        models = []
        for index, identifier in enumerate(identifiers or ("acme_digits",)):
            data = bytes((index + byte) % 251 for byte in range(1003))
            models.append(Model(identifier, example_lock(data), data))
        contents = Contents("spoken-digits", "1.2.3", tuple(models), licence=_LICENCE, alignment=64)
        return replace(contents, **changes)  # type: ignore[arg-type]

    def _files(self, contents: Contents) -> Mapping[str, File]:
        return self.factory().files(contents)

    def test_is_a_packager(self) -> None:
        packager = self.factory()
        assert isinstance(packager, Packager)
        assert packager.name == packager.name.lower().strip()

    def test_every_path_is_relative_and_its_own(self) -> None:
        paths = list(self._files(self._contents("digits", "words")))
        for path in paths:
            assert path == str(PurePosixPath(path)), path
            assert not path.startswith("/"), path
            assert ".." not in PurePosixPath(path).parts, path
            assert path not in COMMON, f"{path} is in every package already"
        folded = [path.lower() for path in paths]
        assert len(set(folded)) == len(folded), "two paths are the same where case does not count"

    def test_says_in_a_readme_how_it_is_used(self) -> None:
        contents = self._contents("digits", "words")
        readme = self._files(contents)["README.md"].data.decode()
        assert readme.startswith(f"# {contents.name} 1.2.3")
        assert "SHA256SUMS" in readme
        for model in contents.models:
            assert model.artifact.sha256 in readme
            assert model.identifier in readme

    def test_same_contents_same_bytes(self) -> None:
        first = self._files(self._contents("digits", "words"))
        second = self._files(self._contents("digits", "words"))
        assert dict(first) == dict(second)
        assert list(first) == list(second)

    def test_another_model_gives_another_package(self) -> None:
        contents = self._contents()
        data = contents.models[0].data + b"\0"
        other = replace(contents, models=(Model("acme_digits", example_lock(data), data),))
        assert dict(self._files(contents)) != dict(self._files(other))

    def test_several_models_are_all_in_it(self) -> None:
        contents = self._contents("digits", "words")
        together = b"".join(file.data for file in self._files(contents).values())
        for model in contents.models:
            assert model.artifact.sha256.encode() in together
            assert model.identifier.encode() in together

    def test_text_ends_in_a_newline_and_tells_nothing_of_the_machine(self) -> None:
        for path, file in self._files(self._contents("digits", "words")).items():
            for private in (str(Path.cwd()), str(Path.home()) + "/"):
                assert private.encode() not in file.data, path
            if path.endswith((".md", ".c", ".h", ".txt", ".cmake", ".yml", ".yaml", ".json", ".mk")):
                assert file.data.endswith(b"\n"), path
                assert b"\r" not in file.data, path
                assert file.data.decode(), path

    @pytest.mark.parametrize("name", ["best/net.tflite", "best/net.pte", "best/net.ncnn"])
    def test_takes_every_format_or_says_why_not(self, name: str) -> None:
        from edgeprune.errors import UsageError

        data = b"TFL3" * 100
        contents = replace(self._contents(), models=(Model("net", example_lock(data, file=name), data),))
        try:
            readme = self._files(contents)["README.md"].data.decode()
        except UsageError as error:
            readme = error.hint or "a refusal that does not say what to do instead"
        assert contents.models[0].artifact.format in readme

    def test_is_whole_and_verifiable_on_disk(self, tmp_path: Path) -> None:
        files = build(self.factory(), self._contents("digits", "words"))
        write_folder(files, tmp_path / "package")
        check = verify_sums(tmp_path / "package")
        assert check.ok
        assert not check.unlisted
        assert set(check.right) == set(files) - {SUMS}
        assert (tmp_path / "package" / "LICENSE").read_text() == _LICENCE
        manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
        assert manifest["kind"] == self.factory().name
        assert [model["identifier"] for model in manifest["models"]] == ["digits", "words"]
