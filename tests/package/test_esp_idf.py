"""The component goes through Espressif's component manager, and into a project built from the README's own lines, with
a stand-in for the one function of ESP-IDF's CMake that components call."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.package.building import call
from tests.package.firmware import MODELS, NAME, blocks, checkers, model_data, packaged

# A component is called like its folder; SRCS and INCLUDE_DIRS are relative to it; REQUIRES passes its headers on.
STAND_IN = """
cmake_minimum_required(VERSION 3.16)
project(app C)
function(idf_component_register)
  cmake_parse_arguments(PARSE_ARGV 0 _ "" "" "SRCS;INCLUDE_DIRS;REQUIRES")
  if(__UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "unknown: ${__UNPARSED_ARGUMENTS}")
  endif()
  get_filename_component(name ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  add_library(${name} OBJECT ${__SRCS})
  foreach(folder ${__INCLUDE_DIRS})
    target_include_directories(${name} PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/${folder})
  endforeach()
  target_link_libraries(${name} PUBLIC ${__REQUIRES})
endfunction()
file(GLOB components components/*)
foreach(component ${components} main)
  add_subdirectory(${component})
endforeach()
add_executable(app $<TARGET_OBJECTS:main>)
target_link_libraries(app PRIVATE main ${DEPENDENCY})
"""


@pytest.fixture(scope="module")
def component(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("esp-idf", tmp_path_factory.mktemp("esp-idf"))


def test_manifest_is_tidy_and_says_the_version(component: Path) -> None:
    call(checkers() / "yamllint", "--strict", "idf_component.yml", cwd=component)
    manifest = yaml.safe_load((component / "idf_component.yml").read_text())
    assert manifest["version"] == "1.2.3"
    assert manifest["dependencies"] == {"idf": {"version": ">=4.4"}}
    assert manifest["description"].endswith("budget: groe_v2 and 3 more")


def test_component_manager_takes_it(component: Path, tmp_path: Path) -> None:
    command = ("component", "pack", "--name", NAME, "--dest-dir", tmp_path / "out")
    call(checkers() / "compote", "-W", *command, cwd=component, IDF_TOOLS_PATH=str(tmp_path / "tools"))
    with tarfile.open(tmp_path / "out" / f"{NAME}_1.2.3.tgz") as archive:
        names = {name.removeprefix("./") for name in archive.getnames()}
    wanted = {path.relative_to(component).as_posix() for path in component.rglob("*") if path.is_file()}
    assert wanted <= names


def test_project_of_the_readme_has_all_models(component: Path, tmp_path: Path) -> None:
    (register,) = blocks(component, "cmake")
    shutil.copytree(component, tmp_path / "components" / NAME)
    (tmp_path / "CMakeLists.txt").write_text(STAND_IN)
    (tmp_path / "main").mkdir()
    (tmp_path / "main/CMakeLists.txt").write_text(register)
    includes = "".join(f'#include "{identifier}.h"\n' for identifier in MODELS)
    prints = "".join(f'printf("%lu %d\\n", (unsigned long){i}_size, {i}_data[9]);' for i in MODELS)
    (tmp_path / "main/main.c").write_text(f"#include <stdio.h>\n{includes}int main(void) {{ {prints} return 0; }}\n")
    call("cmake", "-G", "Ninja", "-B", "build", f"-DDEPENDENCY={NAME}", ".", cwd=tmp_path)
    call("cmake", "--build", "build", cwd=tmp_path)
    printed = call(tmp_path / "build/app")
    assert printed.splitlines() == [f"20001 {model_data(name)[9]}" for name in MODELS]


def test_local_dependency_of_the_readme_leads_to_the_component(component: Path) -> None:
    (lines,) = blocks(component, "yaml")
    path = yaml.safe_load(lines)["dependencies"][NAME]["path"]
    # From the folder of a project's component, the project lying beside the package.
    assert (component.parent / "project" / "main" / path).resolve() == component
