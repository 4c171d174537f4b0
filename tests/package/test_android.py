"""There is no Gradle here: Android's own packaging tool builds an application of what the AAR holds, as Gradle does."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.package.building import call
from tests.package.firmware import FILES, NAME, blocks, model_data, packaged

AAR = f"{NAME}-1.2.3.aar"
ASSETS = f"assets/edgeprune/{NAME}"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
ANDROID = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("android", tmp_path_factory.mktemp("android"))


def test_aar_has_what_every_aar_has_and_the_models(package: Path) -> None:
    with zipfile.ZipFile(package / AAR) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        assert {"AndroidManifest.xml", "R.txt", "classes.jar"} <= names
        assert {name for name in names if name.startswith("assets/")} == {
            f"{ASSETS}/{name}" for name in (*FILES.values(), "manifest.json", "LICENSE")
        }
        for identifier, name in FILES.items():
            assert archive.read(f"{ASSETS}/{name}") == model_data(identifier)
        with zipfile.ZipFile(io.BytesIO(archive.read("classes.jar"))) as jar:
            assert jar.namelist() == ["META-INF/MANIFEST.MF"]
        manifest = ET.fromstring(archive.read("AndroidManifest.xml"))
    assert manifest.get("package") == "edgeprune.model_spoken_digits"
    sdk = manifest.find("uses-sdk")
    assert sdk is not None
    assert sdk.get(f"{ANDROID}minSdkVersion") == "21"


def test_application_has_the_models_as_assets(package: Path, tmp_path: Path) -> None:
    if not FRAMEWORK.is_file():
        pytest.skip("android-framework-res is not installed (scripts/test installs it as root)")
    with zipfile.ZipFile(package / AAR) as archive:
        for name in archive.namelist():
            assert ".." not in name
            archive.extract(name, tmp_path / "aar")
    suffixes = [part for suffix in ("onnx", "tflite") for part in ("-0", suffix)]
    folder = ("-M", "aar/AndroidManifest.xml", "-A", "aar/assets", "-I", FRAMEWORK)
    call("aapt", "package", *folder, *suffixes, "-F", "app.apk", cwd=tmp_path)
    assert "package: name='edgeprune.model_spoken_digits'" in call("aapt", "dump", "badging", tmp_path / "app.apk")
    with zipfile.ZipFile(tmp_path / "app.apk") as archive:
        for identifier, name in FILES.items():
            assert archive.getinfo(f"{ASSETS}/{name}").compress_type == zipfile.ZIP_STORED
            assert archive.read(f"{ASSETS}/{name}") == model_data(identifier)


def test_readme_names_the_archive_and_the_asset(package: Path) -> None:
    gradle, kotlin = blocks(package, "kotlin")
    assert f'implementation(files("libs/{AAR}"))' in gradle
    assert 'noCompress += listOf("onnx", "tflite")' in gradle
    with zipfile.ZipFile(package / AAR) as archive:
        asset = kotlin.partition('open("')[2].partition('"')[0]
        assert f"assets/{asset}" in archive.namelist()
