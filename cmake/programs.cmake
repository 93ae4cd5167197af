# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# What our own programs have in common. Nothing here concerns who uses the library.

include_guard()
include(CheckCXXCompilerFlag)

set(CMAKE_CXX_EXTENSIONS OFF)

add_library(strata_program INTERFACE)
target_link_libraries(strata_program INTERFACE strata::strata)
set(warnings -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  list(APPEND warnings -Wno-restrict)  # a false alarm in std::string (GCC bug 105651)
endif()
if(STRATA_WARNINGS_AS_ERRORS)
  list(APPEND warnings -Werror)
endif()
target_compile_options(strata_program INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${warnings}>")
if(STRATA_NATIVE)
  check_cxx_compiler_flag(-march=native STRATA_HAS_MARCH_NATIVE)  # clang lacks it on some machines
  if(STRATA_HAS_MARCH_NATIVE)
    target_compile_options(strata_program INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native>)
  endif()
endif()

# How a release optimises what is compiled more often than it is run.
set(strata_quick $<$<CONFIG:Release>:$<IF:$<CXX_COMPILER_ID:GNU>,-Og,-O0>>)

# Programs for devices. Code for sm_80 runs on all later ones, too: the driver compiles what comes
# with it. Their host compiler is nvcc's own choice, or CMAKE_CUDA_HOST_COMPILER.
if(TARGET strata_cuda)
  set(STRATA_CUDA_ARCHITECTURES 80 CACHE STRING "Architectures of our own CUDA programs: 80, 90a, ...")
  option(STRATA_CUDA_QUICK "Compile device code quickly rather than to be quick" OFF)
  set(CMAKE_CUDA_ARCHITECTURES ${STRATA_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  add_custom_target(strata_cuda_programs)  # all of them

  # strata_cuda_program(<target>): warnings of nvcc are errors. CMake 3.25 does not know that nvcc has
  # C++20, so it is asked for by hand.
  function(strata_cuda_program target)
    target_link_libraries(${target} PRIVATE strata::cuda)
    target_compile_options(${target} PRIVATE
      "$<$<COMPILE_LANGUAGE:CUDA>:-std=c++20;--Werror=all-warnings>")
    if(STRATA_CUDA_QUICK AND CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
      target_compile_options(${target} PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--Ofast-compile=max>)  # a quarter of the time
    endif()
    # What nvcc makes of {.seed = 1} is an old extension to clang.
    if("${CMAKE_CUDA_HOST_COMPILER}" MATCHES "clang")
      target_compile_options(${target} PRIVATE
        "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wno-gnu-designator>")
    endif()
    add_dependencies(strata_cuda_programs ${target})
  endfunction()
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
