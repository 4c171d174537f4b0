"""`--for buildroot`: an external tree (BR2_EXTERNAL) with one package, which installs the models.

external.desc  Config.in  external.mk
package/digits/Config.in  package/digits/digits.mk  package/digits/files/digits.onnx ...
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.linux import device_files, folder
from edgeprune.package.readme import models_table, verification

__all__ = ["BuildrootPackager"]


class BuildrootPackager:
    """The package's folder is the external tree."""

    name = "buildroot"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        name, package = contents.name, f"package/{contents.name}"
        sources = device_files(self.name, contents)
        return {
            "external.desc": text(f"name: {_tree(contents)}\ndesc: The models of {name}, pruned to a measured budget"),
            "Config.in": text(f'source "$BR2_EXTERNAL_{_tree(contents)}_PATH/{package}/Config.in"'),
            "external.mk": text(f"include $(sort $(wildcard $(BR2_EXTERNAL_{_tree(contents)}_PATH)/package/*/*.mk))"),
            f"{package}/Config.in": text(_config(contents)),
            f"{package}/{name}.mk": text(_rules(contents, sources)),
            **{f"{package}/files/{path}": file for path, file in sources.items()},
            "README.md": text(_readme(contents)),
        }


def _macro(contents: Contents) -> str:
    return contents.name.upper().replace("-", "_")


def _tree(contents: Contents) -> str:
    return f"EDGEPRUNE_{_macro(contents)}"


def _config(contents: Contents) -> str:
    lines = [
        f"config BR2_PACKAGE_{_macro(contents)}",
        f'\tbool "{contents.name}"',
        "\thelp",
        "\t  Neural networks, pruned to a measured budget:",
        "",
        *(f"\t  {model.file_name}" for model in contents.models),
    ]
    return "\n".join(lines)


def _rules(contents: Contents, sources: Mapping[str, File]) -> str:
    name, macro = contents.name, _macro(contents)
    installed = "\n".join(
        f"\t$(INSTALL) -D -m 0644 $(@D)/{path} \\\n\t\t$(TARGET_DIR)/{folder(contents)}/{path}"
        for path in sorted(sources)
    )
    licence = (
        f"{macro}_LICENSE = PROPRIETARY\n{macro}_REDISTRIBUTE = NO"
        if contents.licence is None
        else f"{macro}_LICENSE = LicenseRef-{name}\n{macro}_LICENSE_FILES = LICENSE"
    )
    return f"""\
{"#" * 80}
#
# {name}
#
{"#" * 80}

{macro}_VERSION = {contents.version}
{macro}_SITE = $(BR2_EXTERNAL_{_tree(contents)}_PATH)/package/{name}/files
{macro}_SITE_METHOD = local
{licence}

define {macro}_INSTALL_TARGET_CMDS
{installed}
endef

$(eval $(generic-package))"""


def _readme(contents: Contents) -> str:
    name, macro = contents.name, _macro(contents)
    licence = (
        "\nNo licence was given, so the package says `PROPRIETARY`, and `make legal-info` leaves the models out.\n"
        if contents.licence is None
        else ""
    )
    return f"""\
# {name} {contents.version}, an external tree for Buildroot

In Buildroot's folder, with this folder beside it (several external trees are joined by `:`):

    make BR2_EXTERNAL=../{name} menuconfig     # External options: {name}
    make

`BR2_PACKAGE_{macro}=y` in your defconfig does the same. The image then has the models in `/{folder(contents)}`.
Nothing is compiled or fetched: they lie in `package/{name}/files`.
{licence}
{models_table(contents)}
{verification()}"""
