// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What the paper and the models' cards say that plans cost.
#include <doctest/doctest.h>

#include <cstdint>

#include <strata/cache/footprint.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/plan.hpp>

#include "support/print.hpp"

namespace {

constexpr std::int64_t kib = 1024;

strata::kv_classes shape(std::int32_t layers, std::int32_t kv_heads, std::int32_t head_dim) {
  strata::layer_kind kind;
  kind.kv = {kv_heads, head_dim, head_dim};
  return strata::kv_classes::uniform(layers, kind);
}

template <class Map>
std::int64_t bf16_bytes(Map const& map, strata::kv_classes const& classes) {
  return strata::bytes_per_token<strata::bf16_codec>(*strata::make_plan(map, classes), classes);
}

}  // namespace

TEST_CASE("published models keep what they are known to keep") {
  CHECK(bf16_bytes(strata::identity_map(36), shape(36, 8, 128)) == 144 * kib);   // Qwen3-8B
  CHECK(bf16_bytes(strata::grouped_map(36, 4), shape(36, 8, 128)) == 36 * kib);  // every 4th
  CHECK(bf16_bytes(strata::identity_map(32), shape(32, 8, 128)) == 128 * kib);   // Llama-3-8B
  CHECK(bf16_bytes(strata::identity_map(32), shape(32, 32, 128)) == 512 * kib);  // Llama-2-7B
}

TEST_CASE("the golden case saves 60 percent") {
  auto const classes = shape(5, 4, 64);
  auto const plan = strata::make_plan(strata::leader_set(5, {0, 2}), classes);
  CHECK(1 - strata::retention(*plan, classes) == doctest::Approx(0.6));
}

TEST_CASE("groups that do not divide the model keep more than 1 / k") {
  auto const kept = [](std::int32_t layers, std::int32_t group_size) {
    auto const plan = strata::make_plan(strata::grouped_map(layers, group_size));
    CHECK(plan->k_slots == plan->v_slots);
    return plan->k_slots;
  };
  CHECK(kept(30, 4) == 8);
  CHECK(kept(28, 3) == 10);
  CHECK(kept(36, 4) == 9);
  CHECK(kept(36, 8) == 5);
  auto const classes = strata::kv_classes::uniform(30);
  CHECK(strata::retention(*strata::make_plan(strata::grouped_map(30, 4)), classes) ==
        doctest::Approx(0.267).epsilon(0.002));
}
