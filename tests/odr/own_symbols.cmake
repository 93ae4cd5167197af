# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# cmake -DNM=<nm> -DOBJECT=<object> -DISA=<name of the instruction set> -P own_symbols.cmake
#
# Every weak symbol that a unit of one instruction set defines has that set in its name. Of others
# the linker might keep this unit's body for units that must run on less.

cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${NM} --defined-only ${OBJECT}
  OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL " [WVu] _Z[^\n]+" symbols "${lines}")
string(LENGTH ${ISA} length)
set(own "3cpu${length}${ISA}")
if(NOT symbols MATCHES ${own})
  message(FATAL_ERROR "${OBJECT} has no kernels of ${ISA}: the test is wrong")
endif()
list(FILTER symbols EXCLUDE REGEX ${own})
if(symbols)
  list(JOIN symbols "\n" symbols)
  message(FATAL_ERROR "without ${ISA} in their names:\n${symbols}")
endif()
