# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# cmake -DNM=<nm> -DFIRST=<object> -DSECOND=<object> -P common_symbols.cmake
#
# Of a weak symbol that both objects define, the linker keeps one body for both: the wrong one for
# half of its callers.

cmake_minimum_required(VERSION 3.25)

function(weak_symbols object result)
  execute_process(COMMAND ${NM} --defined-only ${object}
    OUTPUT_VARIABLE lines COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL " [WVu] _Z[^\n]+" lines "${lines}")
  if(NOT lines MATCHES "3cpu")
    message(FATAL_ERROR "${object} has no kernels: the test is wrong")
  endif()
  set(${result} ${lines} PARENT_SCOPE)
endfunction()

weak_symbols(${FIRST} first)
weak_symbols(${SECOND} second)
set(shared)
foreach(symbol IN LISTS first)
  if(symbol IN_LIST second)
    list(APPEND shared ${symbol})
  endif()
endforeach()
if(shared)
  list(JOIN shared "\n" shared)
  message(FATAL_ERROR "two instruction sets share\n${shared}")
endif()
