# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#
# The README's program, between ```cpp and ```, is PROGRAM from its first #include on.
file(READ ${README} readme)
file(READ ${PROGRAM} program)

string(FIND "${readme}" "```cpp\n" begin)
if(begin EQUAL -1)
  message(FATAL_ERROR "README.md shows no program")
endif()
math(EXPR begin "${begin} + 7")
string(SUBSTRING "${readme}" ${begin} -1 shown)
string(FIND "${shown}" "```" end)
string(SUBSTRING "${shown}" 0 ${end} shown)

string(FIND "${program}" "#include" begin)
string(SUBSTRING "${program}" ${begin} -1 program)
if(NOT shown STREQUAL program)
  message(FATAL_ERROR "The README's program differs from ${PROGRAM}")
endif()
