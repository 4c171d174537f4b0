"""`--for tar`: the model files as they are, to be loaded from a file system."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.readme import models_table, verification

__all__ = ["TarPackager"]


class TarPackager:
    """models/<identifier><suffix>; written as an archive where the output is called one (`-o digits.tar.gz`)."""

    name = "tar"

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **{f"models/{model.file_name}": File(model.data) for model in contents.models},
            "README.md": text(_readme(contents)),
        }


def _readme(contents: Contents) -> str:
    files = "\n".join(f"- `models/{model.file_name}`" for model in contents.models)
    return f"""\
# {contents.name} {contents.version}

{files}

{models_table(contents)}
{verification()}"""
