// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Changes of the committed inputs, some thousands, the same ones every time: what any compiler can do
// of what libFuzzer does.
#include <doctest/doctest.h>

#include <cstddef>
#include <random>
#include <string_view>

#include "fuzz/engine_forms_target.hpp"
#include "fuzz/mutation.hpp"
#include "fuzz/snapshot_mutation.hpp"
#include "fuzz/snapshot_target.hpp"
#include "fuzz/strategy_target.hpp"

namespace {

using fuzz::buffer;
using fuzz::change;
using fuzz::throw_at;

/// Bytes that say more than others do: characters of strings.
void change_character(buffer& input, std::mt19937& random) {
  constexpr std::string_view characters = "0123456789,:/._s";
  if (input.size() < 2) return;
  auto const at = 1 + random() % (input.size() - 1);
  input[at] = static_cast<std::byte>(characters[random() % characters.size()]);
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
