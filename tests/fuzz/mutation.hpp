// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Changes of committed inputs, the same ones every time: what any compiler can do of what libFuzzer
// does.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>

#include "fuzz/corpus.hpp"
#include "support/sanitized.hpp"

namespace fuzz {

/// Somewhere in an input, its end included.
inline std::ptrdiff_t place(buffer const& input, std::mt19937& random) {
  return static_cast<std::ptrdiff_t>(random() % (input.size() + 1));
}

/// One change of any bytes, with a part of another input now and then.
inline void change(buffer& input, buffer const& other, std::mt19937& random) {
  auto const at = input.begin() + place(input, random);
  auto const byte = static_cast<std::byte>(random());
  switch (random() % 6) {
    case 0:
      input.insert(at, byte);
      return;
    case 1:
      input.insert(at, 3, byte);
      return;
    case 2:
      input.erase(at, std::min(at + 1 + static_cast<int>(random() % 4), input.end()));
      return;
    case 3:
      input.insert(at, other.begin() + place(other, random), other.end());
      return;
    case 4:
      if (at != input.end()) *at ^= std::byte{1} << random() % 8;
      return;
    default:
      if (at != input.end()) *at = byte;
  }
}

/// Throws so many changed inputs at a target.
template <std::size_t Count, class Change, class Target>
void throw_at(std::string const& name, int times, Change const& changed, Target const& one_input) {
  auto const inputs = corpus_of(name);
  std::mt19937 random(1);
  tally<Count> came;
  for (int i = 0; i < times / support::case_step(); ++i) {
    auto input = inputs[random() % inputs.size()];
    auto const& other = inputs[random() % inputs.size()];
    for (auto changes = random() % 3 + 1; changes > 0; --changes) changed(input, other, random);
    if (input.size() > 4096) input.resize(4096);
    came.add(one_input(input));
  }
  came.check(1);
}

}  // namespace fuzz
