from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from edgeprune import registry
from edgeprune.errors import StorageError, UsageError
from edgeprune.export import manifest
from edgeprune.package.base import Contents, File
from edgeprune.package.checksums import SIGNATURE
from edgeprune.package.tar import TarPackager
from edgeprune.pipeline.locking import relock, write_lock
from edgeprune.pipeline.package import Depfile, Options, package
from edgeprune.records import codec
from edgeprune.records.budget import Budget
from edgeprune.records.candidate import Candidate
from edgeprune.records.result import Result
from edgeprune.records.trial import Stage, Trial
from edgeprune.testing.packagers import example_lock, locked_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return locked_run(tmp_path / "runs/1", b"model one")


def identifiers(runs: list[str], out: Path, **options: object) -> list[str]:
    packaged = package(runs, out, kind="tar", options=Options(**options))  # type: ignore[arg-type]
    return [model.identifier for model in packaged.contents.models]


def test_names(run: Path, tmp_path: Path) -> None:
    other = str(locked_run(tmp_path / "runs/2", b"model two"))
    one = str(run)
    assert identifiers([one], tmp_path / "a") == ["digits"]
    assert identifiers([one], tmp_path / "b", name="Key words!") == ["key_words"]
    assert identifiers([one, other], tmp_path / "c") == ["digits", "digits_2"]
    assert identifiers([one, other], tmp_path / "d", name="speech", prefix="acme_") == ["acme_digits", "acme_digits_2"]
    assert identifiers([f"Wake={one}", f"words={other}"], tmp_path / "e") == ["wake", "words"]
    assert json.loads((tmp_path / "d/manifest.json").read_text())["name"] == "speech"
    assert json.loads((tmp_path / "e/manifest.json").read_text())["name"] == "wake"


def test_a_run_is_its_folder_or_its_lock_whatever_it_is_called(tmp_path: Path) -> None:
    run = locked_run(tmp_path / "a=b", b"model")
    assert identifiers([str(run)], tmp_path / "a") == ["digits"]
    assert identifiers([str(run / "edgeprune.lock")], tmp_path / "b") == ["digits"]


@pytest.mark.parametrize("name", ["best/net.tflite", "best/net.pte", "best/net.ncnn"])
def test_every_format_is_packaged(tmp_path: Path, name: str) -> None:
    data = b"any bytes"
    run = locked_run(tmp_path / "run", data, example_lock(data, file=name))
    package([str(run)], tmp_path / "out", kind="tar")
    assert (tmp_path / "out/models" / f"digits{Path(name).suffix}").read_bytes() == data


def test_an_artifact_that_changed_is_not_packaged(run: Path, tmp_path: Path) -> None:
    (run / "best/model.onnx").write_bytes(b"model 0ne")
    with pytest.raises(UsageError, match=r"model\.onnx is not the file that .*edgeprune\.lock names: sha256"):
        package([str(run)], tmp_path / "out", kind="c")
    assert not (tmp_path / "out").exists()


def test_an_artifact_that_is_missing(run: Path, tmp_path: Path) -> None:
    (run / "best/model.onnx").unlink()
    with pytest.raises(UsageError, match="which is not there"):
        package([str(run)], tmp_path / "out", kind="c")


def test_a_run_that_did_not_end_well(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match=r"there is no edgeprune\.lock in"):
        relock(tmp_path / "run")
    with pytest.raises(UsageError, match=r"there is no lock .*run/edgeprune\.lock"):
        package([str(tmp_path / "run")], tmp_path / "out", kind="c", options=Options(locked=True))


def exported(folder: Path, name: str = "keywords.tflite") -> Path:
    data = b"an exported file"
    artifact = example_lock(data, file=name).artifact
    facts = {"candidate": "abc", "params": 5, "macs": 6, "arena_bytes": 3488, "torch": "2.13.0"}
    path = folder / name
    path.write_bytes(data)
    manifest.write(replace(artifact, path=path, provenance=facts))
    return path


def test_an_exported_file_is_packaged_with_what_its_manifest_says(tmp_path: Path) -> None:
    path = exported(tmp_path)
    options = Options(depfile=Depfile(tmp_path / "a.d", "target"))
    packaged = package([str(path)], tmp_path / "out", kind="c", options=options)
    assert [model.identifier for model in packaged.contents.models] == ["keywords"]
    found = json.loads((tmp_path / "out/manifest.json").read_text())["models"][0]
    assert (found["candidate"], found["params"], found["memory"]["arena"]["bytes"]) == ("abc", 5, 3488)
    assert list(found["figures"]) == ["size"]
    assert (tmp_path / "a.d").read_text() == f"target: \\\n  {path} \\\n  {path}.manifest.json\n"


def test_an_exported_file_has_no_lock(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"keywords\.tflite is a file without a lock"):
        package([str(exported(tmp_path))], tmp_path / "out", kind="c", options=Options(locked=True))


def test_an_exported_file_that_changed_or_has_no_manifest_is_not_packaged(tmp_path: Path) -> None:
    path = exported(tmp_path)
    path.write_bytes(b"an exported fi1e")
    with pytest.raises(UsageError, match="is not the file that its manifest describes"):
        package([str(path)], tmp_path / "out", kind="c")
    manifest.manifest_path(path).unlink()
    with pytest.raises(UsageError, match=r"has no keywords\.tflite\.manifest\.json"):
        package([str(path)], tmp_path / "out", kind="c")


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "is not a lock of schema")])
def test_a_lock_that_cannot_be_read(run: Path, tmp_path: Path, text: str, message: str) -> None:
    (run / "edgeprune.lock").write_text(text)
    with pytest.raises(UsageError, match=message):
        package([str(run)], tmp_path / "out", kind="c")


def test_a_result_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    (run / "edgeprune.lock").unlink()
    (run / "result.json").write_text("{")
    with pytest.raises(StorageError, match=r"cannot read .*result\.json"):
        package([str(run)], tmp_path / "out", kind="c")


def test_a_run_that_accepted_nothing_has_no_lock(run: Path, tmp_path: Path) -> None:
    dense = Trial(0, Stage.MEASURE, Candidate(), "OK", {})
    result = Result("infeasible", Budget.parse({"size": "1kB"}), dense, dense, None, 1)
    assert write_lock(result, run) is None
    assert not (run / "edgeprune.lock").exists()  # nor one of an earlier result
    (run / "result.json").write_text(json.dumps(codec.to_json(result)))
    with pytest.raises(UsageError, match="chose nothing that could be packaged: infeasible") as caught:
        package([str(run)], tmp_path / "out", kind="c")
    assert "edgeprune report" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(alignment=3), "an alignment of 3 is not possible"),
        (Options(alignment=0), "an alignment of 0"),
        (Options(version="1"), "is not of the form"),
        (Options(prefix="1_"), "cannot begin a C identifier"),
        (Options(licence=Path("nowhere")), "there is no licence nowhere"),
        (Options(sign=Path("nowhere")), "there is no key nowhere"),
    ],
)
def test_options_that_cannot_be(run: Path, tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        package([str(run)], tmp_path / "out", kind="c", options=options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_kind_names_those_that_are_known(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown packager 'cmak'") as caught:
        package([str(run)], tmp_path / "out", kind="cmak")
    assert "did you mean 'cmake'?" in (caught.value.hint or "")


@pytest.mark.parametrize("epoch", ["-1", "1.5", "now", "99999999999999"])
def test_an_epoch_that_is_none(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH is"):
        package([str(run)], tmp_path / "out", kind="c")


def test_the_epoch_is_the_only_time(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    package([str(run)], tmp_path / "out", kind="c")
    bom = json.loads((tmp_path / "out/sbom.cdx.json").read_text())
    assert bom["metadata"]["timestamp"] == "1970-01-02T00:00:00Z"


def test_the_depfile_names_all_that_was_read(run: Path, tmp_path: Path) -> None:
    licence = tmp_path / "licence.txt"
    licence.write_text("free")
    made = Options(depfile=Depfile(tmp_path / "a.d", "target"), licence=licence)
    package([str(run)], tmp_path / "out", kind="c", options=made)
    read = [run / "edgeprune.lock", run / "best/model.onnx", licence]
    assert (tmp_path / "a.d").read_text() == " \\\n  ".join(["target:", *map(str, read)]) + "\n"


def test_the_depfile_is_of_the_archive_by_default(run: Path, tmp_path: Path) -> None:
    options = Options(depfile=Depfile(tmp_path / "a.d"))
    package([str(run)], tmp_path / "out.tar", kind="c", options=options)
    assert (tmp_path / "a.d").read_text().startswith(f"{tmp_path / 'out.tar'}:")
    package([str(run)], tmp_path / "out", kind="c", options=options)
    assert (tmp_path / "a.d").read_text().startswith(f"{tmp_path / 'out/manifest.json'}:")


def test_a_package_that_is_signed_no_more_has_no_signature(run: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"a test").digest())
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    package([str(run)], tmp_path / "out", kind="tar", options=Options(sign=tmp_path / "key.pem"))
    assert (tmp_path / "out" / SIGNATURE).stat().st_size == 64
    package([str(run)], tmp_path / "out", kind="tar")
    assert not (tmp_path / "out" / SIGNATURE).exists()


class Curious(TarPackager):
    """A plug-in that asks the network."""

    def files(self, contents: Contents) -> dict[str, File]:
        with socket.socket() as asking:
            asking.connect(("127.0.0.1", 9))
        return dict(super().files(contents))


def test_offline_is_enforced(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "resolve", lambda kind, name: Curious)
    with pytest.raises(UsageError, match=r"--offline, but socket\.connect\(\('127\.0\.0\.1', 9\),\) was called"):
        package([str(run)], tmp_path / "out", kind="tar", options=Options(offline=True))
    with pytest.raises(ConnectionRefusedError):  # and only there
        package([str(run)], tmp_path / "out", kind="tar")
