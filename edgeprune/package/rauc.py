"""`--for rauc`: the input of a RAUC bundle, which is signed where the key is: `rauc bundle` is the last step.

    input/manifest.raucm
    input/models.tar        what the slot of class "models" gets; RAUC makes a file system and unpacks it there

Manifest: https://rauc.readthedocs.io/en/latest/reference.html#manifest
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from edgeprune.errors import UsageError
from edgeprune.package.archives import tar_archive
from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files
from edgeprune.package.readme import models_table, verification

__all__ = ["RaucPackager"]

_SMALL = 64 * 1024  # bytes: RAUC refuses to make a verity bundle of less than a page, once it is compressed
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")
_SLOT_CLASS = re.compile(r"[a-z][a-z0-9_-]{0,30}")


class RaucPackager:
    """A bundle for a slot of its own. `compatible` is that of the device's system.conf, `slot` the slot's class."""

    name = "rauc"

    def __init__(self, compatible: str = "", slot: str = "models") -> None:
        if compatible and not _WORD.fullmatch(compatible):
            hint = "what /etc/rauc/system.conf of the device says: rauc:compatible=acme camera"
            raise UsageError(f"{compatible!r} is not a compatible of RAUC", hint=hint)
        if not _SLOT_CLASS.fullmatch(slot):
            hint = "lower-case letters, digits, - and _: rauc:slot=models"
            raise UsageError(f"{slot!r} is not a class of slots of RAUC", hint=hint)
        self.compatible, self.slot = compatible, slot

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        archive = tar_archive(device_files(self.name, contents), contents.epoch)
        compatible = self.compatible or contents.name
        return {
            "input/models.tar": File(archive),
            "input/manifest.raucm": text(_manifest(contents, compatible, self.slot, archive)),
            "README.md": text(_readme(contents, compatible, self.slot)),
        }


def _manifest(contents: Contents, compatible: str, slot: str, archive: bytes) -> str:
    layout = "plain" if len(archive) < _SMALL else "verity"
    return f"""\
[update]
compatible={compatible}
version={contents.version}

[bundle]
format={layout}

[image.{slot}]
filename=models.tar
sha256={hashlib.sha256(archive).hexdigest()}
size={len(archive)}"""


def _readme(contents: Contents, compatible: str, slot: str) -> str:
    bundle = f"{contents.name}-{contents.version}.raucb"
    return f"""\
# {contents.name} {contents.version}, for RAUC

`input/` is what a bundle is made of. Sign it with your key (`cert.pem`, `key.pem`), and check it with the keyring
that your devices have; `rauc bundle` may rewrite its input, so it gets a copy:

```sh
rm -rf bundle-input {bundle} extracted
cp -r input bundle-input
rauc bundle --cert=cert.pem --key=key.pem bundle-input {bundle}
rauc info --keyring=keyring.pem {bundle}
rauc extract --keyring=keyring.pem {bundle} extracted
cmp input/models.tar extracted/models.tar
```

On the device, `rauc install {bundle}`. It takes the bundle where its `/etc/rauc/system.conf` has
`compatible={compatible}`, and a slot of the class `{slot}`, beside those of the system:

```ini
[slot.{slot}.0]
device=/dev/disk/by-partlabel/{slot}
type=ext4
```

RAUC makes a new file system in the slot, and unpacks the models there. The slot must not be mounted meanwhile, and a
power cut leaves it to be installed again. Where the models are to change with the root file system, and to fall back
with it, have a slot of the class per root (`parent=rootfs.0`, `parent=rootfs.1`), and put `models.tar` with its section
of `input/manifest.raucm` into the bundle of the system.

Another `compatible` or class: `edgeprune package RUN --for "rauc:compatible=acme camera,slot=appfs"`.

{models_table(contents)}
{verification()}"""
