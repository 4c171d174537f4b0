"""Every packager that is registered keeps the contract, and the command's help names it."""

from __future__ import annotations

import click
import pytest

from edgeprune import registry
from edgeprune.cli.package import package_command
from edgeprune.package.base import Packager
from edgeprune.testing.packagers import PackagerContract


@pytest.mark.parametrize("name", registry.names("packagers"))
def test_is_found_by_its_own_name_and_named_in_the_help(name: str) -> None:
    packager = registry.resolve("packagers", name)()
    assert isinstance(packager, Packager)
    assert packager.name == name
    option = next(o for o in package_command.params if o.name == "kind")
    assert isinstance(option, click.Option)
    assert name in (option.help or "")


@pytest.mark.parametrize("factory", [registry.resolve("packagers", name) for name in registry.names("packagers")])
class TestContract(PackagerContract):
    @pytest.fixture(autouse=True)
    def _of(self, factory: type) -> None:
        self.factory = factory
