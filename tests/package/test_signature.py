"""Keys made by openssl sign, openssl verifies, and so does edgeprune."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from edgeprune.errors import UsageError
from edgeprune.package.build import build
from edgeprune.package.checksums import SIGNATURE, SUMS
from edgeprune.package.signature import sign, verify_signature
from edgeprune.package.tar import TarPackager
from edgeprune.package.write import write_folder
from tests.package.building import call, contents, model


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """key.pem, public.pem; other.pem; rsa.pem; locked.pem, which has a passphrase."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        call("openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / f"{name}.pem")
    call("openssl", "pkey", "-in", folder / "key.pem", "-pubout", "-out", folder / "public.pem")
    call("openssl", "genpkey", "-algorithm", "rsa", "-out", folder / "rsa.pem")
    secret = ("-aes256", "-pass", "pass:secret")
    call("openssl", "genpkey", "-algorithm", "ed25519", *secret, "-out", folder / "locked.pem")
    return folder


@pytest.fixture
def signed(keys: Path, tmp_path: Path) -> Path:
    made = contents(model("digits", b"digits"))
    write_folder(build(TarPackager(), made, sign=partial(sign, key=keys / "key.pem")), tmp_path)
    return tmp_path


def openssl_verifies(folder: Path, key: Path) -> str:
    """As the README says it."""
    line = next(line for line in (folder / "README.md").read_text().splitlines() if "pkeyutl -verify" in line)
    words = [str(key) if word == "public.pem" else word for word in line.split()]
    return call(*words, cwd=folder)


def test_openssl_verifies_it_as_the_readme_says(signed: Path, keys: Path) -> None:
    assert "Signature Verified Successfully" in openssl_verifies(signed, keys / "public.pem")


def test_openssl_refuses_it_after_a_change(signed: Path, keys: Path) -> None:
    with (signed / SUMS).open("a") as file:
        file.write("\n")
    with pytest.raises(AssertionError, match="Signature Verification Failure"):
        openssl_verifies(signed, keys / "public.pem")


@pytest.mark.parametrize("key", ["public.pem", "key.pem"])
def test_it_is_verified_by_either_half_of_the_key(signed: Path, keys: Path, key: str) -> None:
    assert verify_signature(signed, keys / key)


def test_another_key_or_another_text_does_not_pass(signed: Path, keys: Path) -> None:
    assert not verify_signature(signed, keys / "other.pem")
    (signed / SUMS).write_text((signed / SUMS).read_text().replace("manifest", "manifesto"))
    assert not verify_signature(signed, keys / "public.pem")


def test_a_signature_of_another_length_does_not_pass(signed: Path, keys: Path) -> None:
    (signed / SIGNATURE).write_bytes(b"")
    assert not verify_signature(signed, keys / "public.pem")


def test_signing_again_gives_the_same(keys: Path) -> None:
    assert sign(b"text", keys / "key.pem") == sign(b"text", keys / "key.pem")
    assert len(sign(b"text", keys / "key.pem")) == 64


def test_a_package_without_a_signature(signed: Path, keys: Path) -> None:
    (signed / SIGNATURE).unlink()
    with pytest.raises(UsageError, match=r"there is no SHA256SUMS\.sig") as caught:
        verify_signature(signed, keys / "public.pem")
    assert "--sign" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rsa.pem", "is not an Ed25519 key"),
        ("locked.pem", "is protected by a passphrase"),
        ("public.pem", "is not a private key in PEM"),
        ("none.pem", "there is no key"),
    ],
)
def test_keys_that_cannot_sign(keys: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sign(b"text", keys / name)
