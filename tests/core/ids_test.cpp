// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>

#include <strata/ids.hpp>

using strata::layer_id;
using strata::sequence_id;
using strata::slot_id;

// An index of one kind is no index of another, and no bare number becomes one unnoticed.
static_assert(!std::is_convertible_v<layer_id, slot_id>);
static_assert(!std::is_convertible_v<slot_id, layer_id>);
static_assert(!std::is_convertible_v<sequence_id, slot_id>);
static_assert(!std::is_constructible_v<slot_id, layer_id>);
static_assert(!std::is_convertible_v<std::int32_t, layer_id>);
static_assert(!std::is_convertible_v<layer_id, std::int32_t>);
static_assert(!std::is_convertible_v<layer_id, bool>);

// Arrays of ids have the layout of arrays of int32_t.
static_assert(sizeof(layer_id) == 4 && std::is_trivially_copyable_v<layer_id>);
static_assert(sizeof(slot_id) == 4 && std::is_trivially_copyable_v<slot_id>);
static_assert(sizeof(sequence_id) == 4 && std::is_trivially_copyable_v<sequence_id>);

TEST_CASE_TEMPLATE("an id that was not set names nothing", Id, layer_id, slot_id, sequence_id) {
  CHECK_FALSE(Id{}.valid());
  CHECK(Id{}.index == -1);
  CHECK(Id{0}.valid());
  CHECK(Id{255}.valid());
  CHECK_FALSE(Id{-2}.valid());
}

TEST_CASE_TEMPLATE("ids are ordered as their numbers", Id, layer_id, slot_id, sequence_id) {
  CHECK(Id{2} < Id{3});
  CHECK(Id{3} <= Id{3});
  CHECK(Id{3} > Id{});
  CHECK(Id{7} == Id{7});
  CHECK(Id{7} != Id{8});
}

TEST_CASE("the named ids are the invalid ones") {
  CHECK(strata::no_layer == layer_id{});
  CHECK(strata::no_slot == slot_id{});
  CHECK(strata::no_sequence == sequence_id{});
  CHECK(strata::max_layers == 256);
}
