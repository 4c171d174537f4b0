"""Detached Ed25519 signatures of SHA256SUMS, which names every other file: `SHA256SUMS.sig`, 64 bytes.

    openssl genpkey -algorithm ed25519 -out key.pem
    openssl pkey -in key.pem -pubout -out public.pem
    openssl pkeyutl -verify -pubin -inkey public.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig

Ed25519 is deterministic (RFC 8032): a package that is signed again is the same to the byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import StorageError, UsageError
from edgeprune.package.checksums import SIGNATURE, SUMS

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["sign", "verify_signature"]

_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def sign(data: bytes, key: Path) -> bytes:
    """The signature of `data` by the private key in the PEM file `key`; raises UsageError, StorageError."""
    return _private_key(key).sign(data)


def verify_signature(folder: Path, key: Path) -> bool:
    """Whether SHA256SUMS.sig is the signature of the folder's SHA256SUMS by `key`, a public or private key in PEM.

    It says nothing of the other files: `verify_sums` does. Raises UsageError where there is no signature or no such
    key, StorageError.
    """
    from cryptography.exceptions import InvalidSignature

    public = _public_key(key)
    try:
        signature = (folder / SIGNATURE).read_bytes()
        data = (folder / SUMS).read_bytes()
    except FileNotFoundError as error:
        hint = "the package was not signed: edgeprune package ... --sign KEY"
        raise UsageError(f"there is no {SIGNATURE} with its {SUMS} in {folder}", hint=hint) from error
    except OSError as error:
        raise StorageError(f"cannot read {folder / SIGNATURE}: {error.strerror or error}") from error
    try:
        public.verify(signature, data)
    except InvalidSignature:
        return False
    return True


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read(path), password=None)
    except TypeError as error:
        hint = "sign by another program: SHA256SUMS is what is signed, SHA256SUMS.sig the signature"
        raise UsageError(f"the key {path} is protected by a passphrase", hint=hint) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is not a private key in PEM", hint=_MAKE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"the key {path} is not an Ed25519 key", hint=_MAKE)
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    data = _read(path)
    if b"PRIVATE KEY" in data:
        return _private_key(path).public_key()
    hint = "write it with: openssl pkey -in key.pem -pubout -out public.pem"
    try:
        key = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path} is not a public key in PEM", hint=hint) from error
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"the key {path} is not an Ed25519 key", hint=hint)
    return key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"there is no key {path}", hint=_MAKE) from error
    except OSError as error:
        raise StorageError(f"cannot read the key {path}: {error.strerror or error}") from error
