// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Changes of the committed inputs, some thousands, the same ones every time: what any compiler can do
// of what libFuzzer does.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include "fuzz/corpus.hpp"
#include "fuzz/engine_forms_target.hpp"
#include "fuzz/snapshot_mutation.hpp"
#include "fuzz/snapshot_target.hpp"
#include "fuzz/strategy_target.hpp"
#include "support/sanitized.hpp"

namespace {

using fuzz::buffer;

/// Somewhere in an input, its end included.
std::ptrdiff_t place(buffer const& input, std::mt19937& random) {
  return static_cast<std::ptrdiff_t>(random() % (input.size() + 1));
}

/// One change of any bytes, with a part of another input now and then.
void change(buffer& input, buffer const& other, std::mt19937& random) {
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

/// Bytes that say more than others do: characters of strings.
void change_character(buffer& input, std::mt19937& random) {
  constexpr std::string_view characters = "0123456789,:/._s";
  if (input.size() < 2) return;
  auto const at = 1 + random() % (input.size() - 1);
  input[at] = static_cast<std::byte>(characters[random() % characters.size()]);
}

/// Throws so many changed inputs at a target.
template <std::size_t Count, class Change, class Target>
void throw_at(std::string const& name, int times, Change const& changed, Target const& one_input) {
  auto const inputs = fuzz::corpus_of(name);
  std::mt19937 random(1);
  fuzz::tally<Count> came;
  for (int i = 0; i < times / support::case_step(); ++i) {
    auto input = inputs[random() % inputs.size()];
    auto const& other = inputs[random() % inputs.size()];
    for (auto changes = random() % 3 + 1; changes > 0; --changes) changed(input, other, random);
    if (input.size() > 4096) input.resize(4096);
    came.add(one_input(input));
  }
  came.check(1);
}

void change_text(buffer& input, buffer const& other, std::mt19937& random) {
  if (random() % 2 == 0) return change_character(input, random);
  change(input, other, random);
}

void change_snapshot(buffer& input, buffer const& other, std::mt19937& random) {
  if (random() % 16 == 0) return change(input, other, random);
  fuzz::snapshot::mutate(input, random);
}

}  // namespace

TEST_CASE("thousands of changed inputs: strategy and routing strings") {
  throw_at<fuzz::strategy::num_reaches>("strategy", 30'000, change_text, fuzz::strategy::one_input);
}

TEST_CASE("thousands of changed inputs: engines' forms of maps") {
  throw_at<fuzz::engine_forms::num_reaches>("engine_forms", 30'000, change_text,
                                            fuzz::engine_forms::one_input);
}

TEST_CASE("thousands of changed inputs: snapshots whose checksums are right") {
  throw_at<fuzz::snapshot::num_reaches>("snapshot", 8'000, change_snapshot,
                                        fuzz::snapshot::one_input);
}
