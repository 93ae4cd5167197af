// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <type_traits>
#include <vector>

#include <strata/random.hpp>

#include "support/statistics.hpp"

using strata::coin;
using strata::draw_key;
using strata::draw_purpose;
using strata::draw_words;
using strata::philox_block;
using strata::pick;

static_assert(std::is_trivially_copyable_v<draw_key>);

namespace {

using four_words = std::array<std::uint32_t, 4>;

constexpr four_words words(philox_block const& b) {
  return {b.word[0], b.word[1], b.word[2], b.word[3]};
}

}  // namespace

// The known answers that Random123 publishes for philox4x32-10.
static_assert(words(strata::philox({{0, 0, 0, 0}}, 0, 0)) ==
              four_words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(words(strata::philox({{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}}, 0xffffffff,
                                   0xffffffff)) ==
              four_words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(words(strata::philox({{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}}, 0xa4093822,
                                   0x299f31d0)) ==
              four_words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

TEST_CASE("philox gives the published answers at run time too") {
  volatile std::uint32_t const zero = 0;
  CHECK(words(strata::philox({{zero, zero, zero, zero}}, zero, zero)) ==
        four_words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
}

TEST_CASE("every field of a key, the layer, the purpose and the index matter") {
  draw_key const key{1, 2, 3, 4, 5};
  std::vector<philox_block> blocks;
  auto const add = [&](draw_key k) { blocks.push_back(draw_words(k, 6)); };
  add(key);
  add({9, 2, 3, 4, 5});
  add({1, 9, 3, 4, 5});
  add({1, 2, 9, 4, 5});
  add({1, 2, 3, 9, 5});
  add({1, 2, 3, 4, 9});
  add({1 + (std::uint64_t{1} << 32), 2, 3, 4, 5});
  add({1, 2 + (std::uint64_t{1} << 32), 3, 4, 5});
  add({2, 1, 3, 4, 5});  // the same numbers in other places
  add({1, 3, 2, 4, 5});
  add({1, 2, 4, 3, 5});
  add({1, 2, 3, 5, 4});
  blocks.push_back(draw_words(key, 7));
  blocks.push_back(draw_words(key, strata::whole_model));
  for (auto const purpose : {draw_purpose::data_order, draw_purpose::weights,
                             draw_purpose::generation, draw_purpose::dropout})
    blocks.push_back(draw_words(key, 6, purpose));
  blocks.push_back(draw_words(key, 6, draw_purpose::route, 1));

  std::set<four_words> distinct;
  for (auto const& b : blocks) distinct.insert(words(b));
  CHECK(distinct.size() == blocks.size());
  // Without a purpose and an index, the draw is the first one of a route.
  CHECK(draw_words(key, 6) == draw_words(key, 6, draw_purpose::route, 0));
}

TEST_CASE("a layer's draw is that of its number") {
  draw_key const key{1, 2, 3, 4, 5};
  CHECK(draw_words(key, strata::layer_id{6}) == draw_words(key, 6));
}

TEST_CASE("a scope keeps the fields that it varies and clears the others") {
  using strata::draw_scope;
  draw_key const key{1, 2, 3, 4, 5};
  CHECK(strata::scoped(key, draw_scope::step) == draw_key{1, 2, 0, 0, 0});
  CHECK(strata::scoped(key, draw_scope::micro_batch) == draw_key{1, 2, 3, 0, 0});
  CHECK(strata::scoped(key, draw_scope::sequence) == draw_key{1, 2, 3, 4, 0});
  CHECK(strata::scoped(key, draw_scope::replica) == draw_key{1, 2, 3, 0, 5});
}

TEST_CASE("a coin compares its first word with the floor of P * 2^32") {
  auto const throw_with = [](std::uint32_t word, double probability) {
    return coin({{word, 0, 0, 0}}, probability);
  };
  CHECK(throw_with(0x7fffffff, 0.5));
  CHECK_FALSE(throw_with(0x80000000, 0.5));
  CHECK(throw_with(0, 0x1p-32));
  CHECK_FALSE(throw_with(1, 0x1p-32));
  // 1000.5 / 2^32 has the floor 1000: word 1000 is not below it.
  CHECK(throw_with(999, 1000.5 * 0x1p-32));
  CHECK_FALSE(throw_with(1000, 1000.5 * 0x1p-32));
  CHECK_FALSE(throw_with(0, 0x1p-33));
  // Only the first word counts.
  CHECK(coin({{0, 0xffffffff, 0xffffffff, 0xffffffff}}, 0.5));
  CHECK_FALSE(coin({{0xffffffff, 0, 0, 0}}, 0.5));
}

TEST_CASE("a coin is certain at 0 and 1, and beyond") {
  for (std::uint32_t const word : {0u, 1u, 0x80000000u, 0xffffffffu}) {
    philox_block const block{{word, 0, 0, 0}};
    CHECK(coin(block, 1.0));
    CHECK(coin(block, 1.5));
    CHECK(coin(block, std::numeric_limits<double>::infinity()));
    CHECK_FALSE(coin(block, 0.0));
    CHECK_FALSE(coin(block, -0.0));
    CHECK_FALSE(coin(block, -0.5));
    CHECK_FALSE(coin(block, std::numeric_limits<double>::quiet_NaN()));
  }
  // The largest probability below 1 still says no to the largest word.
  CHECK_FALSE(coin({{0xffffffff, 0, 0, 0}}, 1 - 0x1p-53));
  CHECK(coin({{0xfffffffe, 0, 0, 0}}, 1 - 0x1p-53));
}

TEST_CASE("a pick maps its second word onto the indices in order") {
  auto const pick_with = [](std::uint32_t word, std::int32_t count) {
    return pick({{0, word, 0, 0}}, count);
  };
  CHECK(pick_with(0, 5) == 0);
  CHECK(pick_with(0xffffffff, 5) == 4);
  CHECK(pick_with(0xffffffff, 1) == 0);
  // 2^32 / 3 = 1431655765.33: the first word that gives 1 is the next integer.
  CHECK(pick_with(1431655765, 3) == 0);
  CHECK(pick_with(1431655766, 3) == 1);
  CHECK(pick_with(2863311530, 3) == 1);
  CHECK(pick_with(2863311531, 3) == 2);
  CHECK(pick_with(0xffffffff, std::numeric_limits<std::int32_t>::max()) ==
        std::numeric_limits<std::int32_t>::max() - 1);
  CHECK(pick({{0xffffffff, 0, 0xffffffff, 0xffffffff}}, 100) == 0);
}

TEST_CASE("draws are uniform over steps, micro-batches, sequences, replicas and layers") {
  auto const uniform = [](auto&& block_of) {
    constexpr std::size_t cells = 16;
    std::array<std::int64_t, cells> coins{}, picks{};
    std::array<double, cells> expected{};
    expected.fill(1.0 / cells);
    for (std::uint32_t i = 0; i < 20000; ++i) {
      philox_block const b = block_of(i);
      ++coins[b.word[0] >> 28];
      ++picks[static_cast<std::size_t>(pick(b, cells))];
    }
    return support::fits(coins, expected) && support::fits(picks, expected);
  };
  CHECK(uniform([](std::uint32_t i) { return draw_words({7, i, 0, 0, 0}, 3); }));
  CHECK(uniform([](std::uint32_t i) { return draw_words({7, 0, i, 0, 0}, 3); }));
  CHECK(uniform([](std::uint32_t i) { return draw_words({7, 0, 0, i, 0}, 3); }));
  CHECK(uniform([](std::uint32_t i) { return draw_words({7, 0, 0, 0, i}, 3); }));
  CHECK(uniform([](std::uint32_t i) { return draw_words({i, 0, 0, 0, 0}, 3); }));
  CHECK(uniform([](std::uint32_t i) { return draw_words({7, 0, 0, 0, 0}, i); }));
}
