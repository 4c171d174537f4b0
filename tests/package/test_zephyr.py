"""A Zephyr application is built from the README's own lines, with stand-ins for the few functions of Zephyr's CMake
that a module uses; options go through kconfiglib, which Zephyr's own Kconfig is a version of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tests.package.building import call
from tests.package.firmware import FILES, MODELS, NAME, blocks, checkers, kconfig, model_data, packaged

# What Zephyr's find_package does, as far as a module sees it. The options are those that kconfiglib computed.
STAND_IN = """
project(Zephyr-Kernel C)
file(STRINGS ${CMAKE_SOURCE_DIR}/.config options REGEX "^CONFIG_.*=y$")
foreach(option ${options})
  string(REPLACE "=y" "" option ${option})
  set(${option} y)
endforeach()
add_library(zephyr_interface INTERFACE)
function(zephyr_compile_definitions)
  target_compile_definitions(zephyr_interface INTERFACE ${ARGN})
endfunction()
function(zephyr_include_directories)
  foreach(folder ${ARGN})
    get_filename_component(folder ${folder} ABSOLUTE BASE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
    target_include_directories(zephyr_interface INTERFACE ${folder})
  endforeach()
endfunction()
macro(zephyr_library_named name)
  set(ZEPHYR_CURRENT_LIBRARY ${name})
  add_library(${name} STATIC "")
  target_link_libraries(${name} PUBLIC zephyr_interface)
  set_property(GLOBAL APPEND PROPERTY ZEPHYR_LIBS ${name})
endmacro()
function(zephyr_library_sources_ifdef option)
  if(${option})
    target_sources(${ZEPHYR_CURRENT_LIBRARY} PRIVATE ${ARGN})
  endif()
endfunction()
add_executable(app "")
foreach(module ${ZEPHYR_EXTRA_MODULES})
  get_filename_component(name ${module} NAME)
  add_subdirectory(${module}/zephyr ${CMAKE_BINARY_DIR}/modules/${name})
endforeach()
get_property(libraries GLOBAL PROPERTY ZEPHYR_LIBS)
target_link_libraries(app PRIVATE ${libraries} zephyr_interface)
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return packaged("zephyr", tmp_path_factory.mktemp("zephyr"))


def test_module_is_what_zephyr_looks_for(module: Path) -> None:
    # The keys are those of the schema in Zephyr's scripts/zephyr_module.py, which looks for these two files.
    described = yaml.safe_load((module / "zephyr/module.yml").read_text())
    assert described == {"name": NAME, "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"}}
    assert (module / described["build"]["cmake"] / "CMakeLists.txt").is_file()
    assert (module / described["build"]["kconfig"]).is_file()
    call(checkers() / "yamllint", "--strict", "zephyr/module.yml", cwd=module)


def _options(module: Path, folder: Path, values: str) -> dict[str, str]:
    """As zephyr_module.py puts a module into Zephyr's menus."""
    found = "config ZEPHYR_MODULE\n\tbool\n\tdefault y\n"
    return kconfig(folder, f'menu "{NAME} ({module})"\nosource "{module}/zephyr/Kconfig"\n{found}endmenu\n', values)


def test_no_model_is_compiled_unless_asked_for(module: Path, tmp_path: Path) -> None:
    found = _options(module, tmp_path, "")
    assert found == {"ZEPHYR_MODULE": "y", **{f"EDGEPRUNE_MODEL_{name.upper()}": "n" for name in MODELS}}


def _application(module: Path, folder: Path, values: str, identifiers: tuple[str, ...], more: str = "") -> str:
    """What an application prints that names these models. `folder` lies beside the module, as the README has it."""
    (lines,) = blocks(module, "cmake")
    (folder / "src").mkdir(parents=True)
    (folder / "zephyr").mkdir()
    (folder / "zephyr/ZephyrConfig.cmake").write_text(STAND_IN)
    _options(module, folder, values)
    (folder / "CMakeLists.txt").write_text(
        f"cmake_minimum_required(VERSION 3.20)\n{lines}find_package(Zephyr REQUIRED)\nproject(app C)\n{more}\n"
        "target_sources(app PRIVATE src/main.c)\n"
    )
    includes = "".join(f'#include "{identifier}.h"\n' for identifier in identifiers)
    prints = "".join(f'printf("%lu %d\\n", (unsigned long){i}_size, {i}_data[20000]);' for i in identifiers)
    (folder / "src/main.c").write_text(f"#include <stdio.h>\n{includes}int main(void) {{ {prints} return 0; }}\n")
    call("cmake", "-G", "Ninja", "-B", "build", "-DZephyr_DIR=zephyr", "-Werror=dev", ".", cwd=folder)
    call("cmake", "--build", "build", cwd=folder)
    return call(folder / "build/app")


def test_application_of_the_readme_has_all_models(module: Path) -> None:
    (values,) = blocks(module, "kconfig")
    printed = _application(module, module.parent / "app", values, tuple(MODELS))
    assert printed.splitlines() == [f"20001 {model_data(name)[20000]}" for name in MODELS]


def test_only_chosen_models_are_compiled(module: Path) -> None:
    folder = module.parent / "app_of_one"
    _application(module, folder, "CONFIG_EDGEPRUNE_MODEL_DIGITS_2=y\n", ("digits_2",))
    compiled = {path.name for path in (folder / "build").rglob("*.c.o")}
    assert compiled == {"digits_2.c.o", "main.c.o"}
    assert set(FILES) - {"digits_2"} == {path.stem for path in (module / "src").iterdir()} - {"digits_2"}


def test_array_is_aligned_as_the_readme_says(module: Path) -> None:
    (setting,) = re.findall(r"`(zephyr_compile_definitions\(.*?\))`", (module / "README.md").read_text())
    folder = module.parent / "app_aligned"
    _application(module, folder, "CONFIG_EDGEPRUNE_MODEL_GROE_V2=y\n", ("groe_v2",), setting)
    sections = call("objdump", "--section-headers", folder / "build/modules/spoken-digits/libedgeprune_spoken_digits.a")
    assert re.search(r" \.rodata +\w+ +\w+ +\w+ +\w+ +2\*\*6\n", sections)


def test_no_chosen_model_is_no_library(module: Path) -> None:
    folder = module.parent / "app_of_none"
    _application(module, folder, "", ())
    assert {path.name for path in (folder / "build").rglob("*.c.o")} == {"main.c.o"}
