"""`edgeprune verify DIR`: packages and runs that somebody has touched, and such that nobody has."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeprune.cli.main import run_cli
from edgeprune.export import manifest
from edgeprune.package.checksums import SIGNATURE, SUMS
from tests.onnx_models import chain_of_matmuls


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the private keys mine.pem and theirs.pem, and a public one of each."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "theirs"):
        openssl("genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.pem")
        openssl("pkey", "-in", folder / f"{name}.pem", "-pubout", "-out", folder / f"{name}.pub")
    return folder


@pytest.fixture
def package(accepted_run: Path, keys: Path, tmp_path: Path) -> Path:
    """A signed package with the file as it is; fresh for each test."""
    folder = tmp_path / "package"
    command = ["package", str(accepted_run), "--for", "tar", "--sign", str(keys / "mine.pem"), "-o", str(folder)]
    assert run_cli(command) == 0
    return folder


@pytest.fixture
def run(accepted_run: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(accepted_run, tmp_path / "run")
    return tmp_path / "run"


def findings(
    capsys: pytest.CaptureFixture[str], folder: Path, *options: str, code: int = 0
) -> dict[str, tuple[str, str]]:
    capsys.readouterr()
    assert run_cli(["verify", str(folder), *options, "--json"]) == code
    data = json.loads(capsys.readouterr().out)
    assert data["ok"] is (code == 0)
    return {finding["name"]: (finding["state"], finding["message"]) for finding in data["findings"]}


def states(found: dict[str, tuple[str, str]]) -> dict[str, str]:
    return {name: state for name, (state, _) in found.items()}


def test_an_untouched_package(package: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, package, "--key", str(keys / "mine.pub"))
    assert states(found) == {"sums": "ok", "signature": "ok", "manifest": "ok"}
    found = findings(capsys, package)
    assert found["signature"] == ("unchecked", f"{SIGNATURE} is there; --key KEY checks it")


def flip_a_byte(package: Path) -> None:
    model = next((package / "models").iterdir())
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)


def take_a_file_out(package: Path) -> None:
    (package / "sbom.cdx.json").unlink()


def put_a_file_in(package: Path) -> None:
    (package / "models/second.onnx").write_bytes(b"another model")


def put_a_link_in(package: Path) -> None:
    (package / "models/more").symlink_to("/etc")


def lead_out(package: Path) -> None:
    outside = package.parent / "outside.txt"
    outside.write_text("outside")
    with (package / SUMS).open("a") as file:
        file.write("5e14fabb5ee0b4ca4a0a5d2d1ac3be5bcf1f9ea8cb4ebae2f1a1cb6c6e1fbab8  ../outside.txt\n")


def empty_the_sums(package: Path) -> None:
    (package / SUMS).write_text("")


def break_the_sums(package: Path) -> None:
    (package / SUMS).write_text("no sum at all\n")


@pytest.mark.parametrize(
    ("touch", "message"),
    [
        (flip_a_byte, "changed: models/small.onnx"),
        (take_a_file_out, "missing: sbom.cdx.json"),
        (put_a_file_in, "not in SHA256SUMS: models/second.onnx"),
        (put_a_link_in, "links, which no package has: models/more"),
        (lead_out, "'../outside.txt' is not a path below the folder"),
        (empty_the_sums, "not in SHA256SUMS: README.md, manifest.json"),
        (break_the_sums, "not a line of sha256sum"),
    ],
)
def test_a_package_that_was_touched(
    package: Path, touch: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(package)
    state, said = findings(capsys, package, code=5)["sums"]
    assert state == "failed"
    assert message in said


def test_a_changed_model_with_its_sums_made_anew(package: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip_a_byte(package)
    sums = subprocess.run(
        ["sha256sum", *(line.split("  ")[1] for line in (package / SUMS).read_text().splitlines())],
        cwd=package,
        check=True,
        capture_output=True,
    ).stdout
    (package / SUMS).write_bytes(sums)
    found = findings(capsys, package, "--key", str(keys / "mine.pub"), code=5)
    assert states(found) == {"sums": "ok", "signature": "failed", "manifest": "failed"}
    assert found["manifest"][1] == "not the artifact that manifest.json describes: models/small.onnx"


def test_a_signature_of_someone_else_and_none(package: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert findings(capsys, package, "--key", str(keys / "theirs.pub"), code=5)["signature"][0] == "failed"
    (package / SIGNATURE).unlink()
    found = findings(capsys, package, "--key", str(keys / "mine.pub"), code=5)
    assert found["signature"] == ("failed", f"there is no {SIGNATURE}")
    (package / SUMS).unlink()
    assert states(findings(capsys, package, code=5)) == {"sums": "failed"}


def test_a_package_of_sources(accepted_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["package", str(accepted_run), "--for", "c", "-o", str(tmp_path / "c")]) == 0
    found = findings(capsys, tmp_path / "c")
    assert states(found) == {"sums": "ok", "signature": "unchecked", "manifest": "ok"}
    assert found["manifest"][1].endswith("inside other files of the package")


def test_a_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(capsys, run)
    assert states(found) == {"artifact": "ok", "measurement": "ok", "lock": "ok", "parity": "ok"}
    assert "model.onnx computes what model.pt2 does" in found["parity"][1]
    assert run_cli(["verify", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("ok: artifact: model.onnx is what its manifest says")


def test_another_network_in_place_of_the_accepted_one(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.onnx", "model.onnx.manifest.json"):
        shutil.copy(run / "trials/0000" / name, run / "best" / name)  # the dense one: same inputs and outputs
    found = findings(capsys, run, code=5)
    assert states(found) == {"artifact": "ok", "measurement": "failed", "lock": "failed", "parity": "failed"}
    assert "differs from the model by" in found["parity"][1]
    manifest.write(chain_of_matmuls(run / "best/model.onnx", width=8, layers=1))
    assert findings(capsys, run, code=5)["parity"][0] == "failed"


def test_a_graph_that_is_another_one_damaged_or_gone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = json.loads((run / "result.json").read_text())
    result["best"]["candidate"]["kept"]["0"] = [0, 1]
    (run / "result.json").write_text(json.dumps(result))
    found = findings(capsys, run, code=5)
    assert found["lock"] == ("failed", "edgeprune.lock says something else than result.json: candidate")
    assert "model.pt2 is of candidate" in found["parity"][1]
    (run / "best/model.pt2").write_bytes(b"PK")
    assert "is not a readable .pt2 file" in findings(capsys, run, code=5)["parity"][1]
    (run / "best/model.pt2").unlink()
    assert findings(capsys, run, code=5)["parity"][0] == "failed"


def test_a_byte_of_a_runs_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / "best/model.onnx").open("ab") as file:
        file.write(b"\0")
    assert states(findings(capsys, run, code=5)) == {"artifact": "failed"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EMPTY"], "neither a package nor a finished run"),
        (["EMPTY/absent"], "is no folder"),
        (["PACKAGE", "--key", "EMPTY/absent.pub"], "there is no key"),
        (["PACKAGE", "--key", "PACKAGE/README.md"], "is not a public key in PEM"),
        (["PACKAGE", "--trained"], "--trained is about two .pt2 files"),
        (["a.pt2", "b.pt2", "--key", "mine.pub"], "--key is about packages"),
    ],
)
def test_what_does_not_go(
    package: Path, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    named = [a.replace("EMPTY", str(tmp_path / "empty")).replace("PACKAGE", str(package)) for a in arguments]
    assert run_cli(["verify", *named]) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_not_signed(run: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(["verify", str(run), "--key", str(keys / "mine.pub")]) == 2
    assert "a run is not signed" in capsys.readouterr().err
