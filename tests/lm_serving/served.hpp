// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Servers of models so small that every strategy can be compared with every other way to compute
// the same.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <strata/attention/reference.hpp>
#include <strata/cache/paged_storage.hpp>
#include <strata/plan.hpp>

#include "lm/tiny.hpp"
#include "serving.hpp"
#include "stack_server.hpp"

namespace served {

/// Of five layers: all keep, some, one; even and odd groups; the tail long and short.
inline std::vector<std::string> const strategies = {
    "full", "every:2", "every:3", "spread:3", "leaders:0,1", "groups:1,4", "tail:4"};

template <class T>
lm::parameters<T> model(lm::model_config const& config) {
  lm::parameters<T> weights(config);
  tiny::set_lively_weights(weights);
  return weights;
}

/// Nothing rounds but the double arithmetic itself; any depths in one batch.
using storage = strata::paged_storage<strata::f64_codec>;
using exact_server = lm::stack_server<double, storage, strata::reference_attention>;

/// Room for `sequences` of `tokens`, whatever their plans.
inline storage room(lm::model_config const& config, std::int32_t sequences, std::int32_t tokens) {
  strata::paged_options o;
  o.max_sequences = sequences;
  o.max_tokens = tokens;
  o.block_size = 3;
  o.k_blocks = o.v_blocks = sequences * config.layers * (tokens / 3 + 1);
  return storage::make(config.classes(), o).value();
}

inline strata::route_plan plan(std::string const& given, lm::model_config const& config) {
  return lm::resolve_strategy(given, config).plan;
}

template <class T>
strata::sequence_id open(lm::server<T>& s, strata::route_plan const& routes) {
  auto const id = s.open(routes);
  REQUIRE(id.ok());
  return *id;
}

template <class T>
std::vector<T> run(lm::server<T>& s, strata::sequence_id id, std::span<std::int32_t const> tokens,
                   strata::logits wanted) {
  auto const outcome = s.run(lm::feed{id, tokens, wanted});
  INFO(strata::describe(outcome).c_str());
  REQUIRE(outcome.ok());
  return {s.logits().begin(), s.logits().end()};
}

inline std::vector<std::int32_t> tokens(lm::model_config const& config, std::int32_t count,
                                        std::uint64_t seed = 1) {
  tiny::tokens const drawn(config, 1, count, seed);
  return {drawn.inputs.begin(), drawn.inputs.end()};
}

template <class T>
double largest_difference(std::span<T const> a, std::span<T const> b) {
  REQUIRE(a.size() == b.size());
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}
template <class T>
double largest_difference(std::vector<T> const& a, std::vector<T> const& b) {
  return largest_difference(std::span<T const>(a), std::span<T const>(b));
}

/// Logits of these models are of the order of 1; a BLAS may sum in another order for other numbers
/// of rows, so that not all bits agree.
inline constexpr double rounding = 1e-12;

/// A text of bytes below `vocab`; it repeats itself after so many at the latest.
inline std::vector<std::int32_t> text_of(std::size_t size, std::int32_t vocab) {
  std::vector<std::int32_t> text(size);
  for (std::size_t i = 0; i < size; ++i)
    text[i] = static_cast<std::int32_t>((i * i + 3 * i) % static_cast<std::size_t>(vocab));
  return text;
}

}  // namespace served
