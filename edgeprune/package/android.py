"""`--for android`: an Android library (AAR) whose assets are the models.

    digits-1.0.0.aar: AndroidManifest.xml  R.txt  classes.jar  assets/edgeprune/digits/digits.onnx ...

An AAR and no module of sources: Gradle takes it as it is, whatever its version, with nothing to compile; Kotlin, Java
and (by AAssetManager) C++ read the same assets. https://developer.android.com/studio/projects/android-library#aar-contents
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.archives import zip_archive
from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files
from edgeprune.package.readme import models_table, verification

__all__ = ["AndroidPackager"]


class AndroidPackager:
    """One AAR of all models."""

    name = "android"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        assets = device_files(self.name, contents)
        members = {
            "AndroidManifest.xml": text(_manifest(contents)),
            "R.txt": File(b""),
            "classes.jar": File(_empty_jar(contents)),  # Gradle plug-ins before 7 want one
            **{f"assets/{_folder(contents)}/{path}": file for path, file in assets.items()},
        }
        return {
            _file_name(contents): File(zip_archive(members, contents.epoch)),
            "README.md": text(_readme(contents)),
        }


def _folder(contents: Contents) -> str:
    return f"edgeprune/{contents.name}"


def _file_name(contents: Contents) -> str:
    return f"{contents.name}-{contents.version}.aar"


def _manifest(contents: Contents) -> str:
    # "model_" before it: the name may be a keyword of Java.
    return f"""\
<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android"
    package="edgeprune.model_{contents.name.replace("-", "_")}">
    <uses-sdk android:minSdkVersion="21" />
</manifest>"""


def _empty_jar(contents: Contents) -> bytes:
    return zip_archive({"META-INF/MANIFEST.MF": File(b"Manifest-Version: 1.0\r\n\r\n")}, contents.epoch)


def _readme(contents: Contents) -> str:
    first, file = contents.models[0], _file_name(contents)
    suffixes = ", ".join(f'"{suffix}"' for suffix in sorted({model.suffix.lstrip(".") for model in contents.models}))
    return f"""\
# {contents.name} {contents.version}, an Android library

Put `{file}` into `app/libs`, and name it in `app/build.gradle.kts`:

```kotlin
android {{
    androidResources {{
        noCompress += listOf({suffixes})  // what is not compressed can be mapped into memory
    }}
}}

dependencies {{
    implementation(files("libs/{file}"))
}}
```

The models are assets of the application:

```kotlin
val model = context.assets.open("{_folder(contents)}/{first.file_name}").use {{ it.readBytes() }}
```

In C++, `AAssetManager_open(manager, "{_folder(contents)}/{first.file_name}", AASSET_MODE_BUFFER)`. A model that is to
be compiled into a native library is better packaged `--for cmake`, which the NDK's CMake takes as well.

{models_table(contents)}
{verification()}"""
