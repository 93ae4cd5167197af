# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# What our own programs have in common. Nothing here concerns who uses the library.

include_guard()
include(CheckCXXCompilerFlag)

set(CMAKE_CXX_EXTENSIONS OFF)

add_library(strata_program INTERFACE)
target_link_libraries(strata_program INTERFACE strata::strata)
target_compile_options(strata_program INTERFACE
  -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-sign-conversion
  # g++ 12 raises a false alarm in std::string (GCC bug 105651).
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict>
  $<$<BOOL:${STRATA_WARNINGS_AS_ERRORS}>:-Werror>)
if(STRATA_NATIVE)
  check_cxx_compiler_flag(-march=native STRATA_HAS_MARCH_NATIVE)  # clang lacks it on some machines
  if(STRATA_HAS_MARCH_NATIVE)
    target_compile_options(strata_program INTERFACE -march=native)
  endif()
endif()

# strata_find_dependency(<package> <repository> <tag>) sets <package>_FOUND: what is installed, else
# a download where STRATA_FETCH_DEPENDENCIES allows it.
macro(strata_find_dependency package repository tag)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND AND STRATA_FETCH_DEPENDENCIES)
    include(FetchContent)
    FetchContent_Declare(${package} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW ON)
    FetchContent_MakeAvailable(${package})
    set(${package}_FOUND TRUE)
  endif()
endmacro()
