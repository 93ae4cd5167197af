// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Models small enough for central differences, and batches for them.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <strata/map/strategy.hpp>
#include <strata/map/table_map.hpp>
#include <strata/plan.hpp>
#include <strata/routing/any_sampler.hpp>
#include <strata/routing/random_window.hpp>
#include <strata/routing/recorded_route.hpp>

#include "config.hpp"
#include "model.hpp"
#include "parameters.hpp"

namespace tiny {

/// Five layers; all sizes differ, so that a swapped pair does not fit by chance.
inline lm::model_config shape() {
  lm::model_config c;
  c.layers = 5;
  c.dim = 10;
  c.q_heads = 4;
  c.kv_heads = 2;
  c.head_dim = 6;
  c.mlp = 14;
  c.vocab = 19;
  c.context = 7;
  return c;
}

/// Everything that is optional, switched on.
inline lm::model_config shape_with_options() {
  auto c = shape();
  c.qk_norm = true;
  c.tied = false;
  c.window = 3;
  c.kv_heads = 1;
  c.rope_scaling = {lm::rope_scaling_kind::llama3, 4, 1, 4, 16};  // 2.5, 0.1 and 0.005 turns
  return c;
}

/// Inputs and targets, of more than one slab where num_seqs * length exceeds 128.
struct tokens {
  std::vector<std::int32_t> inputs, targets;
  std::int32_t num_seqs = 0, length = 0;

  tokens(lm::model_config const& c, std::int32_t seqs, std::int32_t len, std::uint64_t seed = 1)
      : num_seqs(seqs), length(len) {
    auto const draw = [&](std::vector<std::int32_t>& out, std::uint32_t stream) {
      for (std::int32_t i = 0; i < seqs * len; ++i)
        out.push_back(
            strata::pick(strata::draw_words({seed}, stream, strata::draw_purpose::data_order,
                                            static_cast<std::uint32_t>(i)),
                         c.vocab < 256 ? c.vocab : 256));
    };
    draw(inputs, 0);
    draw(targets, 1);
  }
  lm::token_batch batch() const { return {inputs.data(), targets.data(), num_seqs, length}; }
};

/// Weights far from their usual size, so that norms, softmax and SwiGLU are curved where we look.
template <class T>
void set_lively_weights(lm::parameters<T>& model, std::uint64_t seed = 3) {
  std::uint32_t which = 0;
  for (auto const& entry : model.table().entries) {
    auto const values = model.tensor(entry);
    for (std::size_t i = 0; i < values.size(); ++i) {
      double draw[4] = {};
      lm::detail::normals(strata::draw_words({seed}, which, strata::draw_purpose::weights,
                                             static_cast<std::uint32_t>(i)),
                          draw);
      values[i] =
          static_cast<T>(entry.role == lm::tensor_role::norm ? 1 + 0.3 * draw[0] : 0.4 * draw[0]);
    }
    ++which;
  }
}

/// A drawn plan and the sampler it came from.
struct drawn {
  std::string name;
  strata::route_plan plan;
};

/// One plan of every sampler, and one whose K and V come from different layers.
inline std::vector<drawn> plans_of_all_samplers(lm::model_config const& c) {
  auto const classes = c.classes();
  std::vector<drawn> list;
  auto const add = [&](std::string name, auto const& sampler, std::uint64_t step = 4) {
    list.push_back({std::move(name), strata::make_plan(sampler, classes, {7, step}).value()});
  };
  auto const routing = [&](char const* text) {
    return strata::parse_routing(text, classes).value();
  };
  for (auto const* text : {"self", "rcla:0", "rcla:0.4", "cla:2", "rdcla:3:0.4", "sets:0.5,0.2",
                           "mix:every:2/spread:2/tail:3"})
    add(text, routing(text));
  add("random_window", strata::random_window<2>(0.2));
  std::int32_t const chain[] = {0, 0, 1, 1, 3};
  add("recorded_route", strata::recorded_route(chain));
  auto const map = [&](char const* text) { return strata::parse_strategy(text, classes).value(); };
  list.push_back(
      {"k and v apart", strata::make_plan(map("leaders:0,3"), map("every:2"), classes).value()});
  return list;
}

/// The rank of a matrix [rows, cols], by elimination: what is left is noise of rounding.
inline int rank_of(std::vector<double> m, std::int64_t rows, std::int64_t cols) {
  auto const at = [&](std::int64_t r, std::int64_t c) -> double& {
    return m[static_cast<std::size_t>(r * cols + c)];
  };
  double largest = 0;
  for (auto const x : m) largest = std::max(largest, std::abs(x));
  int rank = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int64_t pivot_row = r, pivot = 0;
    for (auto i = r; i < rows; ++i)
      for (std::int64_t c = 0; c < cols; ++c)
        if (std::abs(at(i, c)) > std::abs(at(pivot_row, pivot))) pivot_row = i, pivot = c;
    if (std::abs(at(pivot_row, pivot)) <= 1e-4 * largest) return rank;
    ++rank;
    for (std::int64_t c = 0; c < cols; ++c) std::swap(at(r, c), at(pivot_row, c));
    for (auto i = r + 1; i < rows; ++i) {
      auto const factor = at(i, pivot) / at(r, pivot);
      for (std::int64_t c = 0; c < cols; ++c) at(i, c) -= factor * at(r, c);
    }
  }
  return rank;
}

/// Layers whose K nobody reads under a plan.
inline int unread(strata::route_plan const& plan) { return plan.num_layers - plan.k_slots; }

}  // namespace tiny
