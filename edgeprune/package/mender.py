"""`--for mender`: a Mender artifact (format 3) for the `directory` update module, which the Mender client comes with.

    digits-1.0.0.mender     replaces /data/edgeprune/digits; rolls back to what was there

Format: https://github.com/mendersoftware/mender-artifact/blob/master/Documentation/artifact-format-v3.md
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from edgeprune.errors import UsageError
from edgeprune.package.archives import tar_archive
from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files
from edgeprune.package.readme import models_table, verification

__all__ = ["MenderPackager"]

_DEVICE_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class MenderPackager:
    """One artifact of all models. `device_type` is that of the devices, several joined by "|"; `directory` is where
    the models go, a folder that nothing else lies in: {name} stands for the package's name."""

    name = "mender"

    def __init__(self, device_type: str = "", directory: str = "/data/edgeprune/{name}") -> None:
        self.device_types = tuple(device_type.split("|")) if device_type else ()
        for one in self.device_types:
            if not _DEVICE_TYPE.fullmatch(one):
                hint = "what /var/lib/mender/device_type of the device says: mender:device_type=raspberrypi4"
                raise UsageError(f"{one!r} is not a device type of Mender", hint=hint)
        # The module writes it into shell commands without quotes, and removes what is there.
        if not re.fullmatch(r"(/[A-Za-z0-9._{}-]+){2,}", directory) or ".." in PurePosixPath(directory).parts:
            hint = "an absolute path of two folders or more, without blanks: mender:directory=/data/models"
            raise UsageError(f"{directory!r} is not a folder for models", hint=hint)
        self.directory = directory

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`. Raises UsageError where no device type was given, and not one profile measured on."""
        types = self.device_types or (_profile(contents),)
        directory = self.directory.replace("{name}", contents.name)
        return {
            f"{_artifact_name(contents)}.mender": File(self._artifact(contents, types, directory)),
            "README.md": text(_readme(contents, types, directory)),
        }

    def _artifact(self, contents: Contents, types: tuple[str, ...], directory: str) -> bytes:
        epoch, software = contents.epoch, f"data-partition.{contents.name}"
        payload = {
            "dest_dir": File(directory.encode()),
            "update.tar": File(tar_archive(device_files(self.name, contents), epoch)),
        }
        header = {
            "header-info": _json(
                {
                    "payloads": [{"type": "directory"}],
                    "artifact_provides": {"artifact_name": _artifact_name(contents)},
                    "artifact_depends": {"device_type": list(types)},
                }
            ),
            "headers/0000/type-info": _json(
                {
                    "type": "directory",
                    "artifact_provides": {f"{software}.version": contents.version},
                    # The rootfs keeps its own version: only what an older package of this name said goes.
                    "clears_artifact_provides": [f"{software}.*"],
                }
            ),
        }
        version = _json({"format": "mender", "version": 3})
        header_tar = tar_archive(header, epoch)
        sums = {f"data/0000/{name}": file.data for name, file in payload.items()}
        sums |= {"header.tar": header_tar, "version": version.data}
        manifest = "".join(f"{hashlib.sha256(sums[path]).hexdigest()}  {path}\n" for path in sorted(sums))
        # The order is part of the format: the client reads it as a stream.
        members = {
            "version": version.data,
            "manifest": manifest.encode(),
            "header.tar": header_tar,
            "data/0000.tar": tar_archive(payload, epoch),
        }
        return tar_archive({name: File(data) for name, data in members.items()}, epoch, keep_order=True)


def _json(data: Any) -> File:
    return File(json.dumps(data, separators=(",", ":")).encode())


def _profile(contents: Contents) -> str:
    """The device profile that all models were measured on: what fits another device is not known."""
    found = {str(model.lock.device.get("profile", "")) for model in contents.models}
    profile = min(found)
    if len(found) > 1 or not _DEVICE_TYPE.fullmatch(profile):
        on = f"these models were measured on {' and '.join(sorted(found))}" if len(found) > 1 else "none is known"
        hint = 'what /var/lib/mender/device_type of the device says: --for "mender:device_type=raspberrypi4"'
        raise UsageError(f"a Mender artifact is for a type of devices, and {on}", hint=hint)
    return profile


def _artifact_name(contents: Contents) -> str:
    return f"{contents.name}-{contents.version}"


def _readme(contents: Contents, types: tuple[str, ...], directory: str) -> str:
    artifact = f"{_artifact_name(contents)}.mender"
    return f"""\
# {contents.name} {contents.version}, for Mender

`{artifact}` is for devices of the type {" or ".join(f"`{one}`" for one in types)}. Look at it, and sign it where
your devices want that, with a key as `openssl ecparam -genkey -name prime256v1 -noout` makes it:

```sh
mender-artifact validate {artifact}
mender-artifact read {artifact}
cp {artifact} signed.mender
mender-artifact sign -k private.pem signed.mender
mender-artifact validate -k public.pem signed.mender
```

Upload it to your server, or install it on the device alone with `mender install {artifact}` and `mender commit`
(`mender-update` since version 4). The `directory` update module, which comes with the client, **replaces the whole of
`{directory}`** by the models; `mender rollback` brings back what was there.

Another device type or folder: `edgeprune package RUN --for "mender:device_type=raspberrypi4,directory=/data/models"`.

{models_table(contents)}
{verification()}"""
