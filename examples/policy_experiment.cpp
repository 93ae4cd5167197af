// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Experiments as types: each model_policy names a sampler, a map, a storage and a kernel; the list
// is known at compile time, and so are the budgets. Each is trained a little on real text, scored
// under three maps, and then served: its own map, its own storage.
#include "tiny_decoder.hpp"

#include <cmath>
#include <cstdio>
#include <string_view>
#include <tuple>
#include <utility>

namespace {

using strata::bf16_codec;
using strata::contiguous_storage;
using strata::grouped_map;
using strata::identity_map;
using strata::model_policy;
using strata::paged_storage;
using strata::reference_attention;

// A budget for a real model, proved before anything runs: Qwen3-8B, bf16, every 4th layer.
constexpr auto qwen3_8b =
    strata::kv_classes::uniform(36, {.kv = {.kv_heads = 8, .k_dim = 128, .v_dim = 128}});
using served = model_policy<strata::random_previous<>, grouped_map<36, 4>,
                            contiguous_storage<bf16_codec>, reference_attention>;
using full = model_policy<strata::self_only, identity_map<36>, contiguous_storage<bf16_codec>,
                          reference_attention>;
static_assert(full::bytes_per_token(qwen3_8b) == 144 * 1024);
static_assert(served::bytes_per_token(qwen3_8b) == 36 * 1024);

template <class Sampler, class Map>
using experiment = model_policy<Sampler, Map, paged_storage<bf16_codec>, reference_attention>;

using pairs = grouped_map<4, 2>;
using experiments = std::tuple<experiment<strata::self_only, identity_map<4>>,  //
                               experiment<strata::random_previous<>, pairs>,    //
                               experiment<strata::fixed_route<pairs>, pairs>,   //
                               experiment<strata::coin_to_map<pairs>, pairs>,   //
                               experiment<strata::random_leader_set, pairs>>;
char const* const names[] = {"plain", "R-CLA", "CLA@2", "RD-CLA@2", "leader sets"};

std::tuple const samplers(strata::self_only{}, strata::random_previous(0.5),
                          strata::fixed_route<pairs>{}, strata::coin_to_map(pairs{}, 0.5),
                          strata::random_leader_set{1.0, 0.5});

constexpr std::size_t window = 4 * 33;

/// The loss of a text through the storage of an experiment, as its map serves it.
template <class Policy, class Model>
double served_loss(Model& model, std::string_view text) {
  auto const classes = model.shape.classes();
  auto const plan = *Policy::plan(classes);
  strata::paged_options room;
  room.max_sequences = model.shape.sequences;
  room.max_tokens = model.shape.length;
  room.block_size = 8;
  room.k_blocks = plan.k_slots * model.shape.rows() / room.block_size;
  room.v_blocks = plan.v_slots * model.shape.rows() / room.block_size;
  typename Policy::stack_type server(typename Policy::storage_type(classes, room));
  return model.served_loss(server, plan, text);
}

/// Trains one experiment and prints its line of the table. True if it learned, and if serving it
/// loses no more than bf16 rounds.
template <class Policy>
bool run(char const* name, typename Policy::sampler_type const& sampler) {
  decoder_shape const shape;
  auto const classes = shape.classes();
  typename Policy::router_type const router(sampler, classes);
  tiny_decoder<float, typename Policy::router_type> model(shape, router, 1);
  for (std::uint64_t step = 0; step < 75; ++step) {
    auto const text = psalm.substr(step * 37 % (psalm.size() - window), window);
    model.pass(*model.router.draw({.seed = 1, .step = step}), text);
    model.descend(0.5f);
  }
  auto const text = psalm.substr(200, window);
  auto const loss = [&](auto const& map) {
    return model.loss(*strata::make_plan(map, classes), text);
  };
  auto const as_served = served_loss<Policy>(model, text);
  std::printf("%-12s %10.3f %10.3f %10.3f %10.3f %12lld\n", name, loss(identity_map<4>{}),
              loss(pairs{}), loss(grouped_map<4, 4>{}), as_served,
              static_cast<long long>(Policy::bytes_per_token(classes)));
  auto const exact = loss(typename Policy::map_type{});
  return exact < 3.5 && std::fabs(as_served - exact) < 0.01;
}

template <std::size_t... I>
bool run_all(std::index_sequence<I...>) {
  bool good = true;
  ((good &= run<std::tuple_element_t<I, experiments>>(names[I], std::get<I>(samplers))), ...);
  return good;
}

}  // namespace

int main() {
  std::puts("loss in nats per byte, under three maps in float and as served in bf16");
  std::printf("%-12s %10s %10s %10s %10s %12s\n", "trained as", "full", "every:2", "one leader",
              "served", "bytes/token");
  return run_all(std::make_index_sequence<std::tuple_size_v<experiments>>{}) ? 0 : 1;
}
