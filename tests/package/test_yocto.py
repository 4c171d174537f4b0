"""There is no bitbake to be had from a package index: the layer is checked by oelint-adv, which parses recipes, and
the recipe's shell function is run as it stands, with the variables that bitbake would give it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from tests.package.building import call
from tests.package.firmware import FILES, LICENCE, NAME, checkers, model_data, packaged

RELEASES = ("kirkstone", "scarthgap", "walnascar", "wrynose")
# A model has no home page, and nobody tracks its bugs or vulnerabilities.
NOT_FOR_MODELS = (
    "mandatoryvar.HOMEPAGE",
    "suggestedvar.AUTHOR",
    "suggestedvar.BUGTRACKER",
    "suggestedvar.CVE_PRODUCT",
    "bbclassextend",
)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("yocto", tmp_path_factory.mktemp("yocto"))


def _recipe(layer: Path) -> Path:
    return layer / "recipes-models" / NAME / f"{NAME}_1.2.3.bb"


def _variables(file: Path) -> dict[str, str]:
    """Assignments on one line or continued by backslashes; their values as they stand."""
    text = file.read_text().replace("\\\n", "")
    return {match[1]: match[3] for match in re.finditer(r'^([\w:${}\[\].-]+) (\??=|\+=|\.=) "([^"]*)"$', text, re.M)}


@pytest.mark.parametrize("release", RELEASES)
def test_linter_of_recipes_finds_nothing(layer: Path, release: str, tmp_path: Path) -> None:
    out = [f"--suppress=oelint.var.{rule}" for rule in NOT_FOR_MODELS]
    said = call(
        checkers() / "oelint-adv", "--quiet", "--release", release, *out, "--cachedir", tmp_path,
        _recipe(layer), layer / "conf/layer.conf",
    )  # fmt: skip
    assert said.strip() == ""


def test_layer_is_found_and_says_for_which_releases(layer: Path) -> None:
    variables = _variables(layer / "conf/layer.conf")
    assert variables["BBFILE_COLLECTIONS"] == f"edgeprune-{NAME}"
    assert set(RELEASES) <= set(variables[f"LAYERSERIES_COMPAT_edgeprune-{NAME}"].split())
    assert variables[f"BBFILE_PATTERN_edgeprune-{NAME}"] == "^${LAYERDIR}/"
    pattern = variables["BBFILES"].removeprefix("${LAYERDIR}/")
    assert list(layer.glob(pattern)) == [_recipe(layer)]


def test_every_source_is_beside_the_recipe(layer: Path) -> None:
    uris = _variables(_recipe(layer))["SRC_URI"].split()
    assert {uri.partition(";")[2] for uri in uris} == {"subdir=${BP}"}
    names = {uri.removeprefix("file://").partition(";")[0] for uri in uris}
    assert names == {*FILES.values(), "manifest.json", "LICENSE"}
    assert names == {path.name for path in (_recipe(layer).parent / "files").iterdir()}


def test_install_function_installs_the_models(layer: Path, tmp_path: Path) -> None:
    shutil.copytree(_recipe(layer).parent / "files", tmp_path / "S")
    function = re.search(r"^do_install\(\) \{\n.*?^\}$", _recipe(layer).read_text(), re.M | re.S)
    assert function is not None
    given = {"S": str(tmp_path / "S"), "D": str(tmp_path / "D"), "datadir": "/usr/share", "BPN": NAME}
    call("sh", "-euc", f"{function[0]}\ndo_install", **given)
    installed = tmp_path / "D/usr/share/edgeprune" / NAME
    assert {path.name for path in installed.iterdir()} == {*FILES.values(), "manifest.json", "LICENSE"}
    for identifier, name in FILES.items():
        assert (installed / name).read_bytes() == model_data(identifier)
    assert json.loads((installed / "manifest.json").read_text())["kind"] == "yocto"


def test_licence_is_the_file_that_was_given_or_closed(layer: Path, tmp_path: Path) -> None:
    text = _recipe(layer).read_text()
    digest = hashlib.md5(LICENCE.encode()).hexdigest()
    assert f'LIC_FILES_CHKSUM = "file://LICENSE;md5={digest}"\n' in text
    assert f'NO_GENERIC_LICENSE[LicenseRef-{NAME}] = "LICENSE"\n' in text
    without = packaged("yocto", tmp_path, licence=False)
    assert 'LICENSE = "CLOSED"\n' in _recipe(without).read_text()
    assert "LICENSE;" not in _recipe(without).read_text()
