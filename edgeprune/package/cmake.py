"""`--for cmake`: a CMake package, found by `find_package` or added as a folder, with `edgeprune_add_model()`."""

from __future__ import annotations

from collections.abc import Mapping

from edgeprune.package.base import Contents, File, text
from edgeprune.package.c_source import c_files, example, sources
from edgeprune.package.readme import models_table, verification

__all__ = ["CMakePackager"]


class CMakePackager:
    """include/, src/, CMakeLists.txt, <name>-config.cmake and its version file, cmake/EdgepruneAddModel.cmake."""

    name = "cmake"
    takes_sparse = True

    def files(self, contents: Contents) -> Mapping[str, File]:
        """See `Packager.files`."""
        return {
            **c_files(contents),
            "example/main.c": example(contents),
            "example/CMakeLists.txt": text(_example(contents)),
            "cmake/EdgepruneAddModel.cmake": text(_ADD_MODEL),
            f"{contents.name}-config.cmake": text(_config(contents)),
            f"{contents.name}-config-version.cmake": text(_config_version(contents)),
            "CMakeLists.txt": text(_lists(contents)),
            "README.md": text(_readme(contents)),
        }


def _config(contents: Contents) -> str:
    name = contents.name
    files = "\n".join(f'    "${{CMAKE_CURRENT_LIST_DIR}}/src/{source}.c"' for source in sources(contents))
    find, link = "", ""
    if contents.sparse:
        find = "\ninclude(CMakeFindDependencyMacro)\nfind_dependency(LibLZMA)"
        link = f"\n  target_link_libraries(edgeprune_{name} PUBLIC LibLZMA::LibLZMA)"
    return f"""\
# The target {name}::{name}, compiled with the flags of the project that uses it, and edgeprune_add_model().
include("${{CMAKE_CURRENT_LIST_DIR}}/cmake/EdgepruneAddModel.cmake"){find}

if(NOT TARGET {name}::{name})
  add_library(edgeprune_{name} STATIC
{files})
  edgeprune_prepare_(edgeprune_{name} "${{CMAKE_CURRENT_LIST_DIR}}/include"){link}
  add_library({name}::{name} ALIAS edgeprune_{name})
endif()"""


def _config_version(contents: Contents) -> str:
    """As CMake's own SameMajorVersion."""
    major = contents.version.partition(".")[0]
    return f"""\
set(PACKAGE_VERSION {contents.version})
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION OR NOT "${{PACKAGE_FIND_VERSION_MAJOR}}" STREQUAL "{major}")
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
else()
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
endif()"""


def _lists(contents: Contents) -> str:
    name = contents.name
    find = "find_package(LibLZMA REQUIRED)\n" if contents.sparse else ""
    return f"""\
# For add_subdirectory() and FetchContent; for find_package() this file is not needed.
cmake_minimum_required(VERSION 3.20)
project({name} VERSION {contents.version} LANGUAGES C)

{find}include("${{CMAKE_CURRENT_LIST_DIR}}/{name}-config.cmake")

install(DIRECTORY include src cmake DESTINATION share/{name})
install(FILES {name}-config.cmake {name}-config-version.cmake DESTINATION share/{name})"""


def _example(contents: Contents) -> str:
    name = contents.name
    return f"""\
cmake_minimum_required(VERSION 3.20)
project(example LANGUAGES C)

find_package({name} {contents.version} REQUIRED CONFIG)

add_executable(example main.c)
target_link_libraries(example PRIVATE {name}::{name})"""


def _readme(contents: Contents) -> str:
    name, first = contents.name, contents.models[0]
    what = f"""\
In C, the model is
`{first.array}` of `{first.identifier}.h`, {len(first.embedded)} bytes in read-only memory;"""
    if first.sparse is not None:
        what = f"""\
In C, the model is
`{first.array}` of `{first.identifier}.h`, {len(first.sparse)} bytes in read-only memory, stored without its zeros:
`edgeprune_sparse_load()`, which is linked with liblzma, makes {first.artifact.size_bytes} bytes of it again;"""
    return f"""\
# {name} {contents.version}, for CMake

```cmake
find_package({name} {contents.version} REQUIRED CONFIG)       # or: add_subdirectory({name})
target_link_libraries(firmware PRIVATE {name}::{name})
```

`-D{name}_DIR=` tells CMake where this folder lies, unless it was installed. {what}
`{first.identifier}_metadata.h` has shapes, types, scales and memory as macros. `{first.macro}_ALIGNMENT` and
`{first.macro}_SECTION`, defined for the target `edgeprune_{name}`, place the array otherwise.

```sh
cmake -S example -B ../build-{name} -D{name}_DIR="$PWD"
cmake --build ../build-{name}
../build-{name}/example
```

To install it where CMake finds it without being told:

```sh
cmake -S . -B ../build-{name}/install --install-prefix "$PWD/../build-{name}/root"
cmake --build ../build-{name}/install
cmake --install ../build-{name}/install
```

## From a run, without a package between

Where edgeprune is installed on the machine that builds, the model can come from the folder of a run itself. It is
compiled again when the run's `edgeprune.lock` names another file, and only then:

```cmake
include({name}/cmake/EdgepruneAddModel.cmake)
edgeprune_add_model(keywords RUN runs/20260101-120000)        # NAME, PREFIX, ALIGN, SECTION, COMPRESSED
target_link_libraries(firmware PRIVATE keywords)              # and in C: #include "keywords.h"
```

{models_table(contents)}
{verification()}"""


_ADD_MODEL = r"""# edgeprune_add_model(<target> RUN <folder>
#                     [NAME <name>] [PREFIX <prefix>] [ALIGN <bytes>] [SECTION <section>] [COMPRESSED])
#
# A library <target> of the model that a run chose: the folder's edgeprune.lock and the file that it names. COMPRESSED
# stores it without its zeros, with edgeprune_sparse_load(), which is linked with liblzma.
# The header is <prefix><name>.h; the name is the target's by default. `edgeprune` is taken from the PATH, or from
# EDGEPRUNE_EXECUTABLE. The lock is all that is read: no network, no training, no torch.
include_guard(GLOBAL)
cmake_policy(PUSH)
cmake_policy(VERSION 3.20) # CMP0116: paths in depfiles

function(edgeprune_add_model target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "COMPRESSED" "RUN;NAME;PREFIX;ALIGN;SECTION" "")
  if(arg_UNPARSED_ARGUMENTS OR NOT arg_RUN)
    message(FATAL_ERROR "edgeprune_add_model(<target> RUN <folder> [NAME] [PREFIX] [ALIGN] [SECTION] [COMPRESSED])")
  endif()
  if(NOT arg_NAME)
    set(arg_NAME "${target}")
  endif()
  if(NOT arg_NAME MATCHES "^[a-z][a-z0-9]*(_[a-z0-9]+)*$")
    message(FATAL_ERROR "edgeprune_add_model: NAME ${arg_NAME}: lower-case letters, digits and single underscores")
  endif()
  get_filename_component(run "${arg_RUN}" ABSOLUTE)
  set(lock "${run}/edgeprune.lock")
  if(NOT EXISTS "${lock}")
    message(FATAL_ERROR "edgeprune_add_model: there is no ${lock}; name the folder of a run that ended well")
  endif()
  find_program(EDGEPRUNE_EXECUTABLE edgeprune REQUIRED)
  set(identifier "${arg_PREFIX}${arg_NAME}")
  set(folder "${CMAKE_CURRENT_BINARY_DIR}/${target}.model")
  set(options)
  foreach(option PREFIX ALIGN SECTION)
    if(DEFINED arg_${option})
      string(TOLOWER "--${option}" name)
      list(APPEND options "${name}=${arg_${option}}")
    endif()
  endforeach()
  set(files "${folder}/src/${identifier}.c" "${folder}/include/${identifier}.h"
            "${folder}/include/${identifier}_metadata.h")
  if(arg_COMPRESSED)
    find_package(LibLZMA REQUIRED)
    list(APPEND options --compressed)
    list(APPEND files "${folder}/src/edgeprune_sparse.c" "${folder}/include/edgeprune_sparse.h")
  endif()
  add_custom_command(
    OUTPUT ${files}
    COMMAND "${EDGEPRUNE_EXECUTABLE}" package "${run}" --for c --locked --offline --quiet
            "--name=${arg_NAME}" ${options}
            -o "${folder}" -MF "${folder}.d" -MT "${folder}/src/${identifier}.c"
    DEPENDS "${lock}"
    DEPFILE "${folder}.d"
    COMMENT "Packaging the model ${identifier}"
    VERBATIM)
  add_library(${target} STATIC ${files})
  edgeprune_prepare_(${target} "${folder}/include")
  if(arg_COMPRESSED)
    target_link_libraries(${target} PUBLIC LibLZMA::LibLZMA)
  endif()
endfunction()

# What all libraries of models have. Where a project has no C, they are C++.
function(edgeprune_prepare_ target include)
  target_include_directories(${target} PUBLIC "$<BUILD_INTERFACE:${include}>")
  get_property(languages GLOBAL PROPERTY ENABLED_LANGUAGES)
  if(NOT C IN_LIST languages)
    get_target_property(sources ${target} SOURCES)
    set_source_files_properties(${sources} PROPERTIES LANGUAGE CXX)
  endif()
endfunction()

cmake_policy(POP)"""
