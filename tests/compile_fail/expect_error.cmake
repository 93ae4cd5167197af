# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# cmake -DCOMMAND=<compiler and flags> -DSOURCE=<file> -P expect_error.cmake

file(STRINGS ${SOURCE} expect REGEX "^// expect: ")
string(REPLACE "// expect: " "" expect "${expect}")
if(expect STREQUAL "")
  message(FATAL_ERROR "${SOURCE} has no line `// expect: <regex>`")
endif()

set(ENV{LC_ALL} C)  # the compiler's own words, and plain quotes
execute_process(COMMAND ${COMMAND} -DSTRATA_SHOULD_FAIL ${SOURCE}
  RESULT_VARIABLE code OUTPUT_VARIABLE output ERROR_VARIABLE output)
if(code EQUAL 0)
  message(FATAL_ERROR "compiled, and should not have")
elseif(NOT output MATCHES "${expect}")
  message(FATAL_ERROR "failed without the message `${expect}`:\n${output}")
endif()
