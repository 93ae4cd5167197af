// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model as servers see it: its matrices in the numbers that they are kept in, all of them alike,
// which products find out when they run. Servers are compiled once for each pair of codecs, 7 s
// each; once for each kind of weights, too, would double that.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/cache/element.hpp>

#include "config.hpp"
#include "parameters.hpp"

namespace lm {

/// A matrix, or a part of one: the pointer that is not null says in which numbers.
template <class T>
struct weight_matrix {
  T const* wide = nullptr;
  strata::bfloat16 const* narrow = nullptr;
};

/// Where a model's weights lie; whoever keeps them outlives it. Norm gains are always T.
template <class T>
struct served_model {
  model_config config;
  model_weights<T const, weight_matrix<T>> weights;
  std::span<std::byte const> memory;  ///< of the matrices
  std::int64_t bytes = 0;             ///< of all weights
  bool narrow = false;                ///< matrices are bf16

  served_model() = default;
  /// Those that are kept as they were trained.
  served_model(parameters<T> const& model)
      : config(model.config()),
        memory(std::as_bytes(model.values())),
        bytes(static_cast<std::int64_t>(model.values().size_bytes())) {
    auto const at = [&](std::size_t i) { return model.tensor(model.table().entries[i]).data(); };
    weights = point_at<T const, weight_matrix<T>>(
        config, [&](std::size_t i) { return weight_matrix<T>{at(i), nullptr}; }, at);
  }
};

}  // namespace lm
