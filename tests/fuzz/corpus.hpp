// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The committed inputs of a target, and how far they come.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace fuzz {

using buffer = std::vector<std::byte>;

/// In the order of their names, so that all machines have the same.
inline std::vector<buffer> corpus_of(std::string const& target) {
  std::vector<std::filesystem::path> paths;
  for (auto const& entry : std::filesystem::directory_iterator(STRATA_FUZZ_CORPUS "/" + target))
    paths.push_back(entry.path());
  std::ranges::sort(paths);
  std::vector<buffer> inputs;
  for (auto const& path : paths) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> const text(std::istreambuf_iterator<char>(file), {});
    auto const data = std::as_bytes(std::span(text));
    inputs.emplace_back(data.begin(), data.end());
  }
  REQUIRE(inputs.size() > 10);
  return inputs;
}

/// How many inputs came how far.
template <std::size_t Count>
struct tally {
  std::size_t inputs[Count] = {};

  void add(int reached) { ++inputs[static_cast<std::size_t>(reached)]; }
  /// That all depths were reached, by so many inputs at least.
  void check(std::size_t least) const {
    for (std::size_t depth = 0; depth < Count; ++depth) {
      CAPTURE(depth);
      CHECK(inputs[depth] >= least);
    }
  }
};

}  // namespace fuzz
