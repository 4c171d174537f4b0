"""What a packager of another author may do wrong is a named bug in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest

from edgeprune.package.base import Contents, File
from edgeprune.package.build import COMMON, build
from edgeprune.package.checksums import SIGNATURE, SUMS
from tests.package.building import contents, model

README = File(b"# digits\n")


class Given:
    """A packager that gives these files."""

    name = "given"

    def __init__(self, **files: File) -> None:
        self._files = {path.replace("__", "/"): file for path, file in files.items()}

    def files(self, contents: Contents) -> Mapping[str, File]:
        return self._files


MADE = contents(model("digits", b"digits"))


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../b", "./a", "a//b", "a\\b", ""])
def test_a_path_that_leads_out(path: str) -> None:
    packager = Given()
    packager._files = {"README.md": README, path: File(b"")}
    with pytest.raises(ValueError, match="the packager given gives a path that leads out of the package"):
        build(packager, MADE)


@pytest.mark.parametrize("path", COMMON)
def test_a_path_that_every_package_has(path: str) -> None:
    with pytest.raises(ValueError, match="which every package gets"):
        build(Given(**{"README.md": README, path: File(b"")}), MADE)


def test_a_file_below_a_file() -> None:
    with pytest.raises(ValueError, match="gives 'a/b' below a file"):
        build(Given(**{"README.md": README, "a": File(b""), "a__b": File(b"")}), MADE)


def test_no_readme() -> None:
    with pytest.raises(ValueError, match=r"gives no README\.md"):
        build(Given(a=File(b"")), MADE)


def test_the_sums_are_signed_and_name_everything_else() -> None:
    files = build(Given(**{"README.md": README}), MADE, sign=lambda data: hashlib.sha512(data).digest())
    assert list(files) == ["README.md", SUMS, SIGNATURE, "manifest.json", "sbom.cdx.json"]
    assert files[SIGNATURE].data == hashlib.sha512(files[SUMS].data).digest()
    named = [line.split("  ")[1] for line in files[SUMS].data.decode().splitlines()]
    assert named == ["README.md", "manifest.json", "sbom.cdx.json"]
