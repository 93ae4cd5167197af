// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Whose K and V the layers of transformers 5.24.0's Gemma models read. Written by shared_tails.py.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

struct shared_tail {
  std::string model;
  std::string_view kinds;             ///< s: a layer with a window, f: a full one
  std::vector<std::int32_t> sources;  ///< of the last layers; those before read their own
};

inline std::vector<shared_tail> const shared_tails = {
    {"Gemma 3n by default",
     "ssssfssssfssssfssssfssssfssssfssssf",
     {18, 18, 18, 18, 19, 18, 18, 18, 18, 19, 18, 18, 18, 18, 19}},
    {"Gemma 3n E2B", "ssssfssssfssssfssssfssssfssssf", {18, 18, 18, 18, 19, 18, 18, 18, 18, 19}},
    {"Gemma 3n without sharing", "ssssfssssf", {}},
    {"Gemma 4 E2B",
     "ssssfssssfssssfssssfssssfssssfssssf",
     {13, 13, 13, 13, 14, 13, 13, 13, 13, 14, 13, 13, 13, 13, 14, 13, 13, 13, 13, 14}},
    {"Gemma 4 E4B",
     "sssssfsssssfsssssfsssssfsssssfsssssfsssssf",
     {22, 22, 22, 22, 22, 23, 22, 22, 22, 22, 22, 23, 22, 22, 22, 22, 22, 23}},
    {"made up: full layers before the tail", "sfsffsfs", {2, 4, 2}},
    {"made up: a source far back", "fsssssssf", {5, 5, 0}},
};
