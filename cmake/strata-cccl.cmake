# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# strata_link_cccl(<target> <reason>) gives an interface target the headers of CCCL (Thrust, CUB and
# libcu++), or sets <reason> to why it cannot. Those of the project's own CCCL::CCCL, where it has
# that, else of a CUDA Toolkit, else of any other place: STRATA_CCCL_INCLUDE_DIR names it. No
# definitions: which device system is Thrust's default is the user's choice. Installed, too.

function(strata_link_cccl target reason)
  set(${reason} "" PARENT_SCOPE)
  if(TARGET CCCL::CCCL)
    target_link_libraries(${target} INTERFACE CCCL::CCCL)
    return()
  endif()
  find_path(STRATA_CCCL_INCLUDE_DIR thrust/version.h
    HINTS ${CUDAToolkit_INCLUDE_DIRS} ${CUDAToolkit_ROOT} ENV CUDAToolkit_ROOT ENV CUDA_PATH
    PATHS /usr/local/cuda /opt/cuda
    PATH_SUFFIXES cccl include/cccl include
    DOC "The folder that has Thrust's thrust/version.h")
  if(NOT STRATA_CCCL_INCLUDE_DIR)
    set(${reason} "the headers of Thrust (CCCL) were not found: install a CUDA Toolkit, or name their \
folder with STRATA_CCCL_INCLUDE_DIR" PARENT_SCOPE)
    return()
  endif()
  # Of CUDA 12.5: the oldest that bulk/ was compiled with.
  file(STRINGS ${STRATA_CCCL_INCLUDE_DIR}/thrust/version.h line REGEX "define THRUST_VERSION [0-9]+")
  string(REGEX MATCH "[0-9]+" version "${line}")
  if(version LESS 200400)
    set(${reason} "Thrust in ${STRATA_CCCL_INCLUDE_DIR} is too old (THRUST_VERSION ${version}); 2.4 or \
later is needed" PARENT_SCOPE)
    return()
  endif()
  target_include_directories(${target} SYSTEM INTERFACE ${STRATA_CCCL_INCLUDE_DIR})
endfunction()
