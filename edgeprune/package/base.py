"""The seam of packagers: models with what is known of them in, the files of a package out.

A packager writes only what its build system wants, and a README.md. The manifest, the checksums, the licence, the
bill of materials and the signature are the same in all packages, and are added to what it gives (`build`).
Nothing here touches torch, ONNX, the network or the clock: the same contents give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from edgeprune.records.artifact import Artifact
from edgeprune.records.lock import Lock

__all__ = ["Contents", "File", "Model", "Packager", "text"]


class File(NamedTuple):
    """A file of a package."""

    data: bytes
    executable: bool = False


def text(content: str, *, executable: bool = False) -> File:
    """A text file; every line ends in a newline, the last one too."""
    return File((content.rstrip("\n") + "\n").encode(), executable)


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a package.

    `identifier` is a valid C identifier, with the package's prefix, and no other model of the package has it: what is
    written in C, in Kconfig or as a file name is made of it.
    """

    identifier: str  # "digits", "acme_digits"
    lock: Lock
    data: bytes  # the artifact; its sha256 was verified
    sparse: bytes | None = None  # the same as a .sparse file, where the package is to hold that instead

    @property
    def artifact(self) -> Artifact:
        """What the file is: format, sha256, size, inputs, outputs."""
        return self.lock.artifact

    @property
    def suffix(self) -> str:
        """Of the artifact's file: ".onnx"."""
        return self.artifact.path.suffix

    @property
    def file_name(self) -> str:
        """What the artifact is called in a package: "digits.onnx"."""
        return self.identifier + self.suffix

    @property
    def embedded(self) -> bytes:
        """What a package of sources holds: the .sparse file where there is one, else the artifact."""
        return self.data if self.sparse is None else self.sparse

    @property
    def array(self) -> str:
        """What these bytes are called in C: "digits_data", and "digits_sparse" where they are to be loaded first."""
        return f"{self.identifier}_{'data' if self.sparse is None else 'sparse'}"

    @property
    def array_size(self) -> str:
        """What their number is called: "digits_size", "digits_sparse_size"; in capitals it is a macro."""
        return f"{self.identifier}_{'size' if self.sparse is None else 'sparse_size'}"

    @property
    def macro(self) -> str:
        """What its macros begin with: "DIGITS"."""
        return self.identifier.upper()


@dataclass(frozen=True, slots=True)
class Contents:
    """What a package is made of. `name` and `version` are checked (`edgeprune.package.names`).

    `epoch` is SOURCE_DATE_EPOCH, 0 where it is not set: the only time that may be written anywhere.
    """

    name: str  # lower-case letters, digits and hyphens: "digits", "spoken-digits"
    version: str  # "1.0.0"
    models: tuple[Model, ...]  # at least one
    licence: str | None = None  # the text, where the user gave one
    alignment: int = 16  # bytes, a power of two
    section: str | None = None  # of the linker, where the arrays go
    epoch: int = 0

    @property
    def sparse(self) -> bool:
        """Whether models are stored without their zeros; it is all or none."""
        return self.models[0].sparse is not None


@runtime_checkable
class Packager(Protocol):
    """One kind of package; made without arguments."""

    name: str  # "zephyr"
    # A packager that can write models as .sparse files says so: `takes_sparse = True`.

    def files(self, contents: Contents) -> Mapping[str, File]:
        """Every file by its path, with `/`, relative and below the package's folder. README.md is among them.

        The names of `edgeprune.package.build.COMMON` are not. Raises UsageError where the models do not go with it.
        """
