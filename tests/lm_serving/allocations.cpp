// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The counting operator new of tests/lm, for this program.
#include "lm/allocations.cpp"
