// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// model_policy: an experiment as one type, whose budgets are compile-time facts.
#include <doctest/doctest.h>

#include <cstdint>
#include <tuple>
#include <type_traits>

#include <strata/strata.hpp>

#include "support/print.hpp"
#include "support/unwritten_step.hpp"

using strata::bf16_codec;
using strata::grouped_map;
using strata::model_policy;
using strata::reference_attention;

namespace {

/// `layers` layers with 8 KV heads of 128, as Qwen3-8B and Llama-3-8B have.
constexpr strata::kv_classes eight_heads(std::int32_t layers) {
  strata::layer_kind kind;
  kind.kv.kv_heads = 8;
  kind.kv.k_dim = kind.kv.v_dim = 128;
  return strata::kv_classes::uniform(layers, kind);
}
constexpr auto qwen3_8b = eight_heads(36);

template <class Map, class Storage = strata::contiguous_storage<bf16_codec>>
using experiment = model_policy<strata::random_previous<>, Map, Storage, reference_attention>;

// The figures of the paper and of the models' makers.
static_assert(experiment<strata::identity_map<36>>::bytes_per_token(qwen3_8b) == 144 * 1024);
static_assert(experiment<grouped_map<36, 2>>::bytes_per_token(qwen3_8b) == 72 * 1024);
static_assert(experiment<grouped_map<36, 4>>::bytes_per_token(qwen3_8b) == 36 * 1024);
static_assert(experiment<grouped_map<36, 8>>::bytes_per_token(qwen3_8b) == 20 * 1024);
static_assert(experiment<strata::identity_map<32>>::bytes_per_token(eight_heads(32)) == 128 * 1024);
// Table 4: 8192 + 128 tokens are 1170 MiB at every layer and 292.5 MiB at every fourth.
static_assert(8320 * experiment<strata::identity_map<36>>::bytes_per_token(qwen3_8b) ==
              1170LL * 1024 * 1024);

// What does not fit has no bytes, and the plan says why.
static_assert(experiment<grouped_map<32, 4>>::bytes_per_token(qwen3_8b) == -1);
static_assert(experiment<grouped_map<32, 4>>::plan(qwen3_8b).state().code ==
              strata::errc::layer_count_mismatch);
static_assert(experiment<grouped_map<36, 4>>::plan(qwen3_8b)->k_slots == 9);

// The codec of each side counts, the storage's shape does not.
static_assert(
    experiment<grouped_map<36, 4>,
               strata::paged_storage<strata::f32_codec, bf16_codec>>::bytes_per_token(qwen3_8b) ==
    54 * 1024);

// An experiment is its four policies and holds nothing.
static_assert(std::is_empty_v<experiment<grouped_map<36, 4>>>);
static_assert(
    std::is_same_v<experiment<grouped_map<36, 4>>::stack_type,
                   strata::stack<strata::contiguous_storage<bf16_codec>, reference_attention>>);
static_assert(std::is_same_v<experiment<grouped_map<36, 4>>::router_type,
                             strata::router<strata::random_previous<>, reference_attention>>);

using every_sampler =
    std::tuple<strata::self_only, strata::random_previous<>, strata::random_window<3>,
               strata::fixed_route<grouped_map<36, 4>>, strata::coin_to_map<grouped_map<36, 4>>,
               strata::random_leader_set, strata::strategy_mixture, strata::recorded_route,
               strata::any_sampler>;
using every_map = std::tuple<strata::identity_map<>, grouped_map<>, strata::leader_set,
                             strata::spread_map, strata::tail_map, strata::table_map>;

template <class Sampler, class... Maps>
constexpr int sizes_with(std::tuple<Maps...>*) {
  return (0 + ... +
          static_cast<int>(sizeof(
              model_policy<Sampler, Maps, strata::paged_storage<strata::f16_codec, bf16_codec>,
                           reference_attention>)));
}
template <class... Samplers>
constexpr int sizes(std::tuple<Samplers...>*) {
  return (0 + ... + sizes_with<Samplers>(static_cast<every_map*>(nullptr)));
}
// Every pair is one: instantiating a policy asks all of its static_asserts.
static_assert(sizes(static_cast<every_sampler*>(nullptr)) == 9 * 6);

}  // namespace

TEST_CASE("a policy whose map is chosen at run time") {
  using chosen = experiment<strata::table_map>;
  auto const map = *strata::parse_strategy("every:4", 36);
  CHECK(chosen::bytes_per_token(qwen3_8b, map) == 36 * 1024);
  CHECK(*chosen::plan(qwen3_8b, map) == *experiment<grouped_map<36, 4>>::plan(qwen3_8b));
  CHECK(chosen::bytes_per_token(qwen3_8b) == -1);  // the empty table is no map of 36 layers
}

TEST_CASE("the types of a policy work together") {
  using small = model_policy<strata::random_previous<>, grouped_map<4, 2>,
                             strata::contiguous_storage<strata::f32_codec>, reference_attention>;
  strata::layer_kind kind;
  kind.kv = {.kv_heads = 1, .k_dim = 2, .v_dim = 2};
  auto const classes = strata::kv_classes::uniform(4, kind);
  auto const plan = *small::plan(classes);
  small::stack_type stack(
      *small::storage_type::make(classes, strata::contiguous_options::for_plan(plan, 1, 8)));
  auto const sequence = stack.open(plan);
  REQUIRE(sequence.ok());
  CHECK(support::grow_unwritten(stack, {*sequence, 3}).ok());
  small::router_type const router(strata::random_previous(0.5), classes);
  CHECK(router.draw({.seed = 1}).ok());
  CHECK(stack.storage().allocated_bytes() == 8 * small::bytes_per_token(classes));
}
