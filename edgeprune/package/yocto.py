"""`--for yocto`: a layer with one recipe, which installs the models; for kirkstone (4.0) and newer.

conf/layer.conf
recipes-models/digits/digits_1.0.0.bb
recipes-models/digits/files/digits.onnx ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files
from edgeprune.package.readme import models_table, verification

__all__ = ["YoctoPackager"]

_SERIES = "kirkstone langdale mickledore nanbield scarthgap styhead walnascar whinlatter wrynose"


class YoctoPackager:
    """The package's folder is the layer."""

    name = "yocto"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        name, recipe = contents.name, f"recipes-models/{contents.name}"
        sources = device_files(self.name, contents)
        return {
            "conf/layer.conf": text(_layer(contents)),
            f"{recipe}/{name}_{contents.version}.bb": text(_recipe(contents, sources)),
            **{f"{recipe}/files/{path}": file for path, file in sources.items()},
            "README.md": text(_readme(contents)),
        }


def _layer(contents: Contents) -> str:
    layer = f"edgeprune-{contents.name}"
    return f"""\
BBPATH .= ":${{LAYERDIR}}"
BBFILES += "${{LAYERDIR}}/recipes-*/*/*.bb"

BBFILE_COLLECTIONS += "{layer}"
BBFILE_PATTERN_{layer} = "^${{LAYERDIR}}/"
BBFILE_PRIORITY_{layer} = "6"

LAYERDEPENDS_{layer} = "core"
LAYERSERIES_COMPAT_{layer} = "{_SERIES}"
"""


def _recipe(contents: Contents, sources: Mapping[str, File]) -> str:
    # With `subdir` the files lie in S as the recipe's default has it, in old releases and in new ones alike.
    uris = " \\\n".join(f"    file://{path};subdir=${{BP}}" for path in sorted(sources))
    installed = "\n".join(
        f"    install -m 0644 ${{S}}/{path} ${{D}}${{datadir}}/edgeprune/${{BPN}}/{path}" for path in sorted(sources)
    )
    models = ", ".join(model.file_name for model in contents.models)
    return f"""\
SUMMARY = "Neural networks pruned to a measured budget"
DESCRIPTION = "Installs {models} with a manifest of what they take, give and need."
SECTION = "science"
{_licence(contents, sources)}

SRC_URI = "\\
{uris} \\
"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {{
    install -d ${{D}}${{datadir}}/edgeprune/${{BPN}}
{installed}
}}

FILES:${{PN}} += "${{datadir}}/edgeprune/${{BPN}}"
"""


def _licence(contents: Contents, sources: Mapping[str, File]) -> str:
    if contents.licence is None:
        return 'LICENSE = "CLOSED"'
    digest = hashlib.md5(sources["LICENSE"].data, usedforsecurity=False).hexdigest()
    licence = f"LicenseRef-{contents.name}"
    return f"""\
LICENSE = "{licence}"
LIC_FILES_CHKSUM = "file://LICENSE;md5={digest}"
NO_GENERIC_LICENSE[{licence}] = "LICENSE\""""


def _readme(contents: Contents) -> str:
    name = contents.name
    licence = (
        "\nNo licence was given, so the recipe says `CLOSED`: nobody may hand the models on.\n"
        if contents.licence is None
        else ""
    )
    return f"""\
# {name} {contents.version}, a layer for the Yocto Project

From kirkstone (4.0) on. In your build folder, with the build environment sourced, and this folder beside it:

    bitbake-layers add-layer ../{name}
    bitbake {name}

and in `conf/local.conf` or your image's recipe:

    IMAGE_INSTALL:append = " {name}"

The image then has the models in `/usr/share/edgeprune/{name}`. Nothing is compiled or fetched: they lie in
`recipes-models/{name}/files`.
{licence}
{models_table(contents)}
{verification()}"""
