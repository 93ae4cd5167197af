// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The draw, bit for bit, against an implementation in another language: both tables were printed by
// tests/support/draw_vectors.py, which knows the specification in random.hpp and not the code.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <string>

#include <strata/map/grouped_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/random.hpp>
#include <strata/routing/coin_to_map.hpp>
#include <strata/routing/random_leader_set.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/random_window.hpp>
#include <strata/routing/strategy_mixture.hpp>

#include "support/print.hpp"

namespace {

using strata::draw_key;
using strata::whole_model;

constexpr draw_key busy{0xfedcba9876543210, 0x123456789abcdef, 0xdeadbeef, 0xc0ffee, 0x8badf00d};
constexpr draw_key all_ones{~std::uint64_t{0}, ~std::uint64_t{0}, 0xffffffff, 0xffffffff,
                            0xffffffff};

struct word_vector {
  draw_key key;
  std::uint32_t layer, purpose, index;
  strata::philox_block words;
  char const* coins;                  // of probability .1, .5, .6, .9
  std::array<std::int32_t, 5> picks;  // of 1, 2, 7, 255, 2^31 - 1
};

// clang-format off
constexpr word_vector word_vectors[] = {
    {{0, 0, 0, 0, 0}, 0, 0, 0, {{0xd4abea56, 0xdd653103, 0x04e23b27, 0x74656f08}}, "0001", {0, 1, 6, 220, 1857198208}},
    {{1, 0, 0, 0, 0}, 1, 0, 0, {{0x184cff46, 0x35d0c489, 0x7199c08d, 0x28ac522a}}, "1111", {0, 0, 1, 53, 451437124}},
    {{0, 1, 0, 0, 0}, 35, 0, 0, {{0xc5db5cbb, 0x18870c7a, 0x34c8cbb5, 0x67bd68cd}}, "0001", {0, 0, 0, 24, 205751868}},
    {{0, 0, 1, 0, 0}, whole_model, 0, 0, {{0x921a8994, 0xd6afd023, 0x3466cb92, 0x97da607e}}, "0011", {0, 1, 5, 213, 1800923152}},
    {{0, 0, 0, 1, 0}, 0, 1, 0, {{0xaacea1bb, 0x1a9b4aff, 0xc27518c1, 0xd5b70150}}, "0001", {0, 0, 0, 26, 223192447}},
    {{0, 0, 0, 0, 1}, 0, 2, 0, {{0xe560d177, 0xbdef7d0b, 0x209b6526, 0xd3748510}}, "0001", {0, 1, 5, 189, 1593294468}},
    {{0x100000000, 0, 0, 0, 0}, 0, 3, 7, {{0x2c887232, 0xde95c6f6, 0x85554770, 0x1977b3f3}}, "0111", {0, 1, 6, 221, 1867178874}},
    {{0, 0x100000000, 0, 0, 0}, 0, 0, 0, {{0x17cc6835, 0x94f374bc, 0x21169e54, 0x9b2947b3}}, "1111", {0, 1, 4, 148, 1249491549}},
    {busy, 1, 0, 0, {{0xb283689f, 0x69f58913, 0x163ec94c, 0xb4ca8cca}}, "0001", {0, 0, 2, 105, 888849545}},
    {all_ones, 35, 0, 0, {{0xb2f8c5a1, 0xa057f066, 0x527f7a67, 0x284a3705}}, "0001", {0, 1, 4, 159, 1345058866}},
    {busy, 0, 0, 0, {{0xfd342a0a, 0xd2c28987, 0x2803d546, 0x9816e9a2}}, "0000", {0, 1, 5, 209, 1767982274}},
    {busy, 1, 0, 0, {{0xb283689f, 0x69f58913, 0x163ec94c, 0xb4ca8cca}}, "0001", {0, 0, 2, 105, 888849545}},
    {busy, 35, 0, 0, {{0x1036db33, 0x17e40051, 0xc22972d1, 0xed633e90}}, "1111", {0, 0, 0, 23, 200409128}},
    {busy, whole_model, 0, 0, {{0xf2383a9a, 0x520e158a, 0x090d6a42, 0x75dda31a}}, "0000", {0, 0, 2, 81, 688327364}},
    {busy, 0, 1, 0, {{0x55184229, 0xed5f1e30, 0x2d2c5f04, 0x809bdf25}}, "0111", {0, 1, 6, 236, 1991216919}},
    {busy, 0, 2, 0, {{0xa987c106, 0xdee1c0e0, 0xee0e773c, 0xde094da4}}, "0001", {0, 1, 6, 222, 1869668463}},
    {busy, 0, 3, 7, {{0x766f5240, 0xe0a0a3a5, 0x26cf4ddf, 0x8338b48d}}, "0111", {0, 1, 6, 223, 1884312017}},
};
// clang-format on

enum class drawn_by { previous, window, coin_to_groups, leader_set, mixture };

struct route_vector {
  drawn_by sampler;
  draw_key key;
  std::array<std::int32_t, 12> sources;
};

// clang-format off
constexpr route_vector route_vectors[] = {
    {drawn_by::previous, {0, 0, 0, 0, 0}, {0, 0, 0, 1, 3, 5, 0, 7, 8, 8, 10, 9}},
    {drawn_by::previous, {0, 1, 0, 0, 0}, {0, 0, 2, 3, 2, 5, 2, 1, 2, 1, 10, 9}},
    {drawn_by::previous, {0, 0, 1, 0, 0}, {0, 1, 0, 3, 4, 1, 4, 5, 0, 4, 6, 8}},
    {drawn_by::previous, busy, {0, 0, 0, 2, 0, 3, 6, 7, 3, 0, 9, 0}},
    {drawn_by::window, {0, 0, 0, 0, 0}, {0, 0, 0, 1, 3, 5, 3, 7, 8, 8, 8, 10}},
    {drawn_by::window, {0, 1, 0, 0, 0}, {0, 0, 1, 3, 2, 4, 4, 4, 5, 6, 9, 10}},
    {drawn_by::window, {0, 0, 1, 0, 0}, {0, 1, 0, 3, 4, 3, 5, 6, 5, 7, 8, 10}},
    {drawn_by::window, busy, {0, 0, 0, 2, 1, 3, 4, 6, 6, 6, 9, 8}},
    {drawn_by::coin_to_groups, {0, 0, 0, 0, 0}, {0, 0, 0, 0, 4, 5, 4, 7, 8, 8, 10, 8}},
    {drawn_by::coin_to_groups, {0, 1, 0, 0, 0}, {0, 0, 0, 3, 4, 5, 4, 4, 8, 8, 8, 8}},
    {drawn_by::coin_to_groups, {0, 0, 1, 0, 0}, {0, 1, 0, 3, 4, 4, 4, 4, 8, 8, 8, 8}},
    {drawn_by::coin_to_groups, busy, {0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8}},
    {drawn_by::leader_set, {0, 0, 0, 0, 0}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {drawn_by::leader_set, {0, 1, 0, 0, 0}, {0, 0, 0, 3, 3, 5, 5, 5, 5, 5, 5, 5}},
    {drawn_by::leader_set, {0, 0, 1, 0, 0}, {0, 0, 0, 3, 4, 4, 4, 4, 4, 4, 4, 4}},
    {drawn_by::leader_set, busy, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {drawn_by::mixture, {0, 0, 0, 0, 0}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}},
    {drawn_by::mixture, {0, 1, 0, 0, 0}, {0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10}},
    {drawn_by::mixture, {0, 0, 1, 0, 0}, {0, 0, 0, 0, 0, 5, 5, 5, 5, 5, 10, 10}},
    {drawn_by::mixture, busy, {0, 0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10}},
};
// clang-format on

strata::result<strata::route_plan> plan_by(drawn_by sampler, draw_key const& key) {
  auto const classes = strata::kv_classes::uniform(12);
  auto const plan = [&](auto const& s) { return strata::make_plan(s, classes, key); };
  auto const groups = [](int size) {
    return strata::table_map::from(strata::grouped_map(12, size));
  };
  switch (sampler) {
    case drawn_by::previous:
      return plan(strata::random_previous(0.6));
    case drawn_by::window:
      return plan(strata::random_window<3>(0.3));
    case drawn_by::coin_to_groups:
      return plan(strata::coin_to_map(strata::grouped_map(12, 4), 0.4));
    case drawn_by::leader_set:
      return plan(strata::random_leader_set{1, 0.5, 0.25});
    case drawn_by::mixture:
      return plan(strata::strategy_mixture{groups(1), groups(2), groups(3), groups(5)});
  }
  return strata::status{strata::errc::unsupported, {}, 0, 0};
}

}  // namespace

TEST_CASE("words, coins and picks are those of the other implementation") {
  for (auto const& v : word_vectors) {
    auto const words =
        strata::draw_words(v.key, v.layer, static_cast<strata::draw_purpose>(v.purpose), v.index);
    CAPTURE(&v - word_vectors);
    CHECK(words == v.words);
    std::string coins;
    for (auto const probability : {0.1, 0.5, 0.6, 0.9})
      coins += strata::coin(words, probability) ? '1' : '0';
    CHECK(coins == v.coins);
    std::array<std::int32_t, 5> picks{};
    constexpr std::array counts{1, 2, 7, 255, 0x7fffffff};
    for (std::size_t i = 0; i < counts.size(); ++i) picks[i] = strata::pick(words, counts[i]);
    CHECK(picks == v.picks);
  }
}

TEST_CASE("whole routes are those of the other implementation") {
  for (auto const& v : route_vectors) {
    auto const plan = plan_by(v.sampler, v.key);
    CAPTURE(&v - route_vectors);
    REQUIRE(plan.ok());
    std::array<std::int32_t, 12> k{}, vs{};
    for (int l = 0; l < 12; ++l) {
      k[static_cast<std::size_t>(l)] = plan->layers[l].k.source.index;
      vs[static_cast<std::size_t>(l)] = plan->layers[l].v.source.index;
    }
    CHECK(k == v.sources);
    CHECK(vs == v.sources);
  }
}
