// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What one translation unit computes with the library. No type of strata: those of a wrapped copy
// are others.
#pragma once

#include <cstdint>

struct answers {
  char const* isa = "";
  std::int32_t slots = 0;
  std::uint32_t random_word = 0;
  float attended[8] = {};
};

answers first();
answers second();
