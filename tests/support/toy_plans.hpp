// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Serving plans of every shipped map, and the stacks whose passes are checked: every shipped kernel
// over every shipped storage.
#pragma once

#include <cstdint>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <strata/attention/cpu/blocked.hpp>
#include <strata/attention/reference.hpp>
#include <strata/map/grouped_map.hpp>
#include <strata/map/identity_map.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/map/tail_map.hpp>
#include <strata/stack.hpp>

#include "engine_cache.hpp"
#include "storage_types.hpp"
#include "toy_oracle.hpp"
#include "toy_serving.hpp"

namespace support {

struct toy_plan {
  std::string name;
  toy_sources sources;
  strata::route_plan plan;
};

template <class KMap, class VMap>
toy_plan named_plan(std::string name, KMap const& k_map, VMap const& v_map,
                    strata::kv_classes const& classes) {
  toy_plan p{std::move(name), {}, *make_plan(k_map, v_map, classes)};
  for (strata::layer_id l{0}; l.index < classes.num_layers(); ++l.index) {
    p.sources.k.push_back(k_map.source(l).index);
    p.sources.v.push_back(v_map.source(l).index);
  }
  return p;
}
template <class Map>
toy_plan named_plan(std::string name, Map const& map, strata::kv_classes const& classes) {
  return named_plan(std::move(name), map, map, classes);
}

inline strata::table_map table(std::vector<std::int32_t> const& sources) {
  return *strata::table_map::make(sources);
}

/// Every shipped map, for a model of six layers that are all alike.
inline std::vector<toy_plan> plans_of_six(strata::kv_classes const& classes) {
  return {
      named_plan("identity", strata::identity_map(6), classes),
      named_plan("every:2", strata::grouped_map<6, 2>{}, classes),
      named_plan("every:4, a short group", strata::grouped_map(6, 4), classes),
      named_plan("one leader", strata::grouped_map(6, 6), classes),
      named_plan("leaders:0,1,5", strata::leader_set(6, {0, 1, 5}), classes),
      named_plan("spread:4", strata::spread_map(6, 4), classes),
      named_plan("tail:3", strata::tail_map(6, 3), classes),
      named_plan("a table that jumps", table({0, 1, 0, 3, 1, 0}), classes),
      named_plan("K from the middle, V from the bottom", table({0, 1, 2, 3, 3, 3}),
                 table({0, 1, 2, 2, 1, 0}), classes),
      named_plan("K shared, V not", strata::grouped_map(6, 3), strata::identity_map(6), classes),
  };
}

/// What the toy computes with: double where the cache holds double.
template <class S>
using toy_number =
    std::conditional_t<std::is_same_v<typename S::k_codec, strata::f64_codec>, double, float>;

inline std::vector<std::int32_t> toy_tokens(std::int32_t count, std::uint64_t seed) {
  number_stream numbers(seed);
  std::vector<std::int32_t> tokens;
  while (static_cast<std::int32_t>(tokens.size()) < count) tokens.push_back(numbers.below(50));
  return tokens;
}

inline std::vector<std::int32_t> first_positions(std::size_t count) {
  std::vector<std::int32_t> positions;
  while (positions.size() < count) positions.push_back(static_cast<std::int32_t>(positions.size()));
  return positions;
}

/// What rounding may add up to in a toy of six layers.
template <class T>
inline constexpr double toy_bound = std::is_same_v<T, double> ? 1e-12 : 2e-4;

/// A model, a stack for it and a server, in one.
template <class S, class Kernel = strata::reference_attention>
struct toy_stack {
  using number = toy_number<S>;
  using storage_type = S;
  using stack_type = strata::stack<S, Kernel>;
  static constexpr double bound = toy_bound<number>;

  toy_model<number> model;
  storage_host<S> host;
  stack_type stack;
  toy_server<number, stack_type> server;

  explicit toy_stack(toy_shape const& shape, share_executor exec = {},
                     storage_room const& room = {})
      : model(shape), host(shape.classes(), room), stack(host.make()), server(model, stack, exec) {}
  toy_stack(toy_stack const&) = delete;

  /// All logits of a sequence of its own, which is closed again.
  std::vector<number> alone(strata::route_plan const& plan, std::vector<std::int32_t> const& tokens,
                            std::vector<std::size_t> const& chunks) {
    auto const id = stack.open(plan);
    if (!id.ok()) return {};
    auto logits = serve_in_chunks(server, *id, tokens, chunks);
    server.forget(*id);
    return stack.close(*id).ok() ? logits : std::vector<number>{};
  }

  /// The same without a cache, in double.
  std::vector<double> dense(toy_sources const& sources, std::vector<std::int32_t> const& tokens,
                            std::vector<std::int32_t> const& positions) const {
    return toy_oracle<typename S::k_codec, typename S::v_codec>(model, sources, tokens, positions);
  }
  std::vector<double> dense(toy_sources const& sources,
                            std::vector<std::int32_t> const& tokens) const {
    return dense(sources, tokens, first_positions(tokens.size()));
  }
};

/// Caches that keep every bit, under both kernels.
using exact_toys = std::tuple<
    toy_stack<strata::contiguous_storage<strata::f64_codec>>,
    toy_stack<strata::paged_storage<strata::f64_codec>>,
    toy_stack<strata::borrowed_storage<strata::f64_codec>>,
    toy_stack<strata::contiguous_storage<strata::f32_codec>>,
    toy_stack<strata::paged_storage<strata::f32_codec>>,
    toy_stack<strata::contiguous_storage<strata::f64_codec>, strata::cpu::blocked_attention>,
    toy_stack<strata::paged_storage<strata::f32_codec>, strata::cpu::blocked_attention>,
    toy_stack<strata::borrowed_storage<strata::f32_codec>, strata::cpu::blocked_attention>>;

/// One of each storage and kernel, in double: for what has nothing to do with codecs.
using double_toys = std::tuple<
    toy_stack<strata::contiguous_storage<strata::f64_codec>>,
    toy_stack<strata::paged_storage<strata::f64_codec>, strata::cpu::blocked_attention>,
    toy_stack<strata::borrowed_storage<strata::f64_codec>, strata::cpu::blocked_attention>>;

}  // namespace support
