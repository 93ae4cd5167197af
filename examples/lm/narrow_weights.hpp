// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A model's weights for serving in half the memory: matrices rounded to bf16 once, norm gains,
// which are few and scale whole columns, in float.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <strata/cache/element.hpp>

#include "aligned_buffer.hpp"
#include "config.hpp"
#include "parameters.hpp"
#include "served_model.hpp"

namespace lm {

/// Tensors are those of make_tensor_table, by their index there. Zeros at first. Moves, but does
/// not copy.
class narrow_weights {
 public:
  explicit narrow_weights(model_config const& config)
      : config_(config), table_(make_tensor_table(config)), matrices_(table_.size) {
    for (auto const& entry : table_.entries) {
      gain_at_.push_back(static_cast<std::int64_t>(gains_.size()));
      if (is_gain(entry)) gains_.resize(gains_.size() + static_cast<std::size_t>(entry.size()));
    }
  }

  /// What one takes. Throws nothing and allocates no weights.
  static std::int64_t bytes(model_config const& config) {
    auto const table = make_tensor_table(config);
    auto sum = table.size * static_cast<std::int64_t>(sizeof(strata::bfloat16));
    for (auto const& entry : table.entries)
      if (is_gain(entry)) sum += entry.size() * static_cast<std::int64_t>(sizeof(float));
    return sum;
  }

  static bool is_gain(tensor_entry const& entry) noexcept {
    return entry.role == tensor_role::norm;
  }

  model_config const& config() const noexcept { return config_; }
  tensor_table const& table() const noexcept { return table_; }
  /// All matrices, each at its entry's offset.
  std::span<strata::bfloat16> values() noexcept { return matrices_.values(); }

  std::span<strata::bfloat16> matrix(std::size_t index) noexcept {
    auto const& entry = table_.entries[index];
    return values().subspan(static_cast<std::size_t>(entry.offset),
                            static_cast<std::size_t>(entry.size()));
  }
  std::span<float> gain(std::size_t index) noexcept {
    return std::span(gains_).subspan(static_cast<std::size_t>(gain_at_[index]),
                                     static_cast<std::size_t>(table_.entries[index].size()));
  }

  /// Elements from `first` on of a tensor, rounded where it is a matrix.
  void set(std::size_t index, std::int64_t first, std::span<float const> from) noexcept {
    auto const begin = static_cast<std::size_t>(first);
    if (is_gain(table_.entries[index])) {
      auto const to = gain(index).subspan(begin);
      for (std::size_t i = 0; i < from.size(); ++i) to[i] = from[i];
    } else {
      auto const to = matrix(index).subspan(begin);
      for (std::size_t i = 0; i < from.size(); ++i) to[i] = strata::to_bfloat16(from[i]);
    }
  }

  served_model<float> served() const {
    served_model<float> model;
    model.config = config_;
    model.memory = std::as_bytes(matrices_.values());
    model.bytes = bytes(config_);
    model.narrow = true;
    model.weights = point_at<float const, weight_matrix<float>>(
        config_,
        [this](std::size_t i) {
          return weight_matrix<float>{nullptr, matrices_.data() + table_.entries[i].offset};
        },
        [this](std::size_t i) { return gains_.data() + gain_at_[i]; });
    return model;
  }

 private:
  model_config config_;
  tensor_table table_;
  aligned_buffer<strata::bfloat16> matrices_;
  std::vector<float> gains_;
  std::vector<std::int64_t> gain_at_;  // [entries]
};

/// The same of a model that is there in float.
inline narrow_weights rounded(parameters<float> const& model) {
  narrow_weights narrow(model.config());
  for (std::size_t i = 0; i < model.table().entries.size(); ++i)
    narrow.set(i, 0, model.tensor(model.table().entries[i]));
  return narrow;
}

}  // namespace lm
