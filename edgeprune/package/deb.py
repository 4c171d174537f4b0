"""`--for deb`: a Debian package, for every architecture, written without dpkg (deb(5), Debian policy 4.6).

digits_1.0.0_all.deb    usr/share/edgeprune/digits/digits.onnx ...
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import format_datetime

from edgeprune.errors import UsageError
from edgeprune.package.archives import ar_archive, stored_gzip, tar_archive
from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files, folder
from edgeprune.package.readme import models_table, verification

__all__ = ["DebPackager"]

_MAINTAINER = re.compile(r"[^\s<>@,][^<>@,\n]* <[^\s<>@,]+@[^\s<>@,]+>")


class DebPackager:
    """One .deb of all models. `maintainer` is "Name <address>", as policy wants it."""

    name = "deb"

    def __init__(self, maintainer: str = "edgeprune <noreply@edgeprune.invalid>") -> None:
        if not _MAINTAINER.fullmatch(maintainer):
            hint = "write it like deb:maintainer=Jane Doe <jane@example.org>"
            raise UsageError(f"{maintainer!r} is not a maintainer of a Debian package", hint=hint)
        self.maintainer = maintainer

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`; raises UsageError for a name of one letter, which Debian does not take."""
        if len(contents.name) < 2:
            hint = "give it a longer one: --name"
            raise UsageError(f"a Debian package cannot have the name {contents.name!r}", hint=hint)
        return {_file_name(contents): File(self._deb(contents)), "README.md": text(_readme(contents))}

    def _deb(self, contents: Contents) -> bytes:
        installed = {f"{folder(contents)}/{path}": file for path, file in device_files(self.name, contents).items()}
        licence = installed.pop(f"{folder(contents)}/LICENSE", None)
        installed[f"usr/share/doc/{contents.name}/copyright"] = licence or text(
            "No licence was given with these models."
        )
        changelog = text(self._changelog(contents)).data
        installed[f"usr/share/doc/{contents.name}/changelog.gz"] = File(stored_gzip(changelog))
        control = {"control": text(self._control(contents, installed)), "md5sums": text(_md5sums(installed))}
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.gz": stored_gzip(tar_archive(control, contents.epoch, root="./", folders=True)),
            "data.tar.gz": stored_gzip(tar_archive(installed, contents.epoch, root="./", folders=True)),
        }
        return ar_archive(members, contents.epoch)

    def _changelog(self, contents: Contents) -> str:
        when = format_datetime(datetime.fromtimestamp(contents.epoch, timezone.utc))
        return f"""\
{contents.name} ({contents.version}) unstable; urgency=medium

  * Neural networks pruned to a measured budget.

 -- {self.maintainer}  {when}"""

    def _control(self, contents: Contents, installed: Mapping[str, File]) -> str:
        models = "\n".join(
            f"  * {model.file_name}, {model.artifact.size_bytes} bytes, sha256\n    {model.artifact.sha256}"
            for model in contents.models
        )
        return f"""\
Package: {contents.name}
Version: {contents.version}
Section: science
Priority: optional
Architecture: all
Multi-Arch: foreign
Maintainer: {self.maintainer}
Installed-Size: {sum(-(-len(file.data) // 1024) for file in installed.values())}
Description: neural networks pruned to a measured budget
 The models lie in /{folder(contents)}, with a manifest
 that says what they take, give and need:
 .
{models}"""


def _md5sums(installed: Mapping[str, File]) -> str:
    return "\n".join(
        f"{hashlib.md5(installed[path].data, usedforsecurity=False).hexdigest()}  {path}" for path in sorted(installed)
    )


def _file_name(contents: Contents) -> str:
    return f"{contents.name}_{contents.version}_all.deb"


def _readme(contents: Contents) -> str:
    name, where = contents.name, folder(contents)
    return f"""\
# {name} {contents.version}, a Debian package

What it is, and what it installs; then, as root, on the device (it fits every architecture):

```sh
dpkg-deb --info {_file_name(contents)}
dpkg-deb --contents {_file_name(contents)}
dpkg --install {_file_name(contents)}
dpkg --listfiles {name}
```

The models are then below `/{where}`. `dpkg --verify {name}` says whether one was changed, and this removes them:

```sh
dpkg --verify {name}
dpkg --remove {name}
```

What is in it is stored, not compressed: its bytes depend on the models alone, not on a version of a compressor. Its
files are of 1970 where SOURCE_DATE_EPOCH was not set, which `lintian` remarks on. The maintainer is set by
`edgeprune package RUN --for "deb:maintainer=Jane Doe <jane@example.org>"`.

{models_table(contents)}
{verification()}"""
