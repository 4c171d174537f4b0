"""The external tree is read by GNU make with a stand-in for Buildroot's generic-package, and by kconfiglib."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.package.building import call
from tests.package.firmware import FILES, LICENCE, NAME, kconfig, model_data, packaged

# Of package/pkg-generic.mk: the package's name is that of its folder; with SITE_METHOD local, SITE is copied to the
# build folder; an install step runs where the option is set.
STAND_IN = """
INSTALL = install
TARGET_DIR = $(CURDIR)/target
LEGAL_DIR = $(CURDIR)/legal
pkgdir = $(dir $(lastword $(MAKEFILE_LIST)))
pkgname = $(lastword $(subst /, ,$(pkgdir)))
UPPERCASE = $(shell echo '$(1)' | tr 'a-z-' 'A-Z_')

define inner-generic-package
$(1)-install: private @D = $(CURDIR)/build/$(1)-$($(2)_VERSION)
$(1)-install:
	test '$($(2)_SITE_METHOD)' = local && test '$(BR2_PACKAGE_$(2))' = y
	mkdir -p $(CURDIR)/build/$(1)-$($(2)_VERSION)
	cp -r $($(2)_SITE)/. $(CURDIR)/build/$(1)-$($(2)_VERSION)
	$$($(2)_INSTALL_TARGET_CMDS)
	$(foreach file,$($(2)_LICENSE_FILES),$(INSTALL) -D $($(2)_SITE)/$(file) $(LEGAL_DIR)/$(file))
	echo 'licence of $(1): $($(2)_LICENSE), redistribute: $(or $($(2)_REDISTRIBUTE),YES)'
endef
generic-package = $(call inner-generic-package,$(pkgname),$(call UPPERCASE,$(pkgname)))

include .config
include $(BR2_EXTERNAL_EDGEPRUNE_SPOKEN_DIGITS_PATH)/external.mk
"""
TREE = "BR2_EXTERNAL_EDGEPRUNE_SPOKEN_DIGITS_PATH"


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("buildroot", tmp_path_factory.mktemp("buildroot"))


def test_description_names_the_tree(tree: Path) -> None:
    lines = dict(line.split(": ", 1) for line in (tree / "external.desc").read_text().splitlines())
    assert lines["name"] == "EDGEPRUNE_SPOKEN_DIGITS"
    assert set(lines) == {"name", "desc"}


def _configured(tree: Path, folder: Path, values: str) -> dict[str, str]:
    # The options of Buildroot have their prefix in their names, so nothing is put before them.
    source = f'source "{tree}/Config.in"\n'
    return kconfig(folder, source, values, CONFIG_="", **{TREE: str(tree)})


def test_option_is_off_until_it_is_set(tree: Path, tmp_path: Path) -> None:
    assert _configured(tree, tmp_path, "") == {"BR2_PACKAGE_SPOKEN_DIGITS": "n"}
    readme = (tree / "README.md").read_text()
    assert "`BR2_PACKAGE_SPOKEN_DIGITS=y`" in readme


def _installed(tree: Path, folder: Path) -> str:
    assert _configured(tree, folder, "BR2_PACKAGE_SPOKEN_DIGITS=y\n") == {"BR2_PACKAGE_SPOKEN_DIGITS": "y"}
    (folder / "Makefile").write_text(STAND_IN)
    return call("make", "--warn-undefined-variables", f"{TREE}={tree}", f"{NAME}-install", cwd=folder)


def test_package_installs_the_models(tree: Path, tmp_path: Path) -> None:
    said = _installed(tree, tmp_path)
    installed = tmp_path / "target/usr/share/edgeprune" / NAME
    assert {path.name for path in installed.iterdir()} == {*FILES.values(), "manifest.json", "LICENSE"}
    for identifier, name in FILES.items():
        assert (installed / name).read_bytes() == model_data(identifier)
        assert (installed / name).stat().st_mode & 0o777 == 0o644
    assert f"licence of {NAME}: LicenseRef-{NAME}, redistribute: YES" in said
    assert (tmp_path / "legal/LICENSE").read_text() == LICENCE


def test_without_a_licence_it_is_not_handed_on(tmp_path: Path) -> None:
    without = packaged("buildroot", tmp_path / "out", licence=False)
    said = _installed(without, tmp_path)
    assert f"licence of {NAME}: PROPRIETARY, redistribute: NO" in said
    assert not (tmp_path / "legal").exists()


def test_files_are_written_as_buildroot_s_check_package_wants(tree: Path) -> None:
    # Of its manual, "coding style": tabs, a header of 80 #, help of at most 72 columns, no blanks at the ends.
    rules = (tree / "package" / NAME / f"{NAME}.mk").read_text().splitlines()
    assert rules[:6] == ["#" * 80, "#", f"# {NAME}", "#", "#" * 80, ""]
    assert not [line for line in rules if line != line.rstrip() or line.startswith(" ")]
    config = (tree / "package" / NAME / "Config.in").read_text().splitlines()
    assert all(len(line.expandtabs(8)) <= 72 for line in config)
    assert all(line.startswith(("\t", "config ")) for line in config if line)
