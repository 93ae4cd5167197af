// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include "../heads_test.cpp"
