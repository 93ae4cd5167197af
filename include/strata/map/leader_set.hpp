// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>

#include <strata/map/layer_map.hpp>
#include <strata/map/layer_mask.hpp>

STRATA_NAMESPACE_BEGIN

/// Any strategy S of the paper: the members lead, every other layer reads the nearest leader before
/// it (arXiv:2604.22782, eq. 3.2; there layers count from 1). Strategy `leaders:0,4,9`.
/// Threads: a value without hidden state; any number ask it at the same time.
class leader_set {
 public:
  constexpr leader_set() noexcept = default;
  constexpr leader_set(std::int32_t num_layers, std::span<std::int32_t const> leaders) noexcept
      : num_layers_(num_layers) {
    for (auto const index : leaders) {
      bool const exists = index >= 0 && index < num_layers && index < max_layers;
      if (exists)
        leaders_.insert({index});
      else if (misfit_.ok())
        misfit_ = {errc::layer_out_of_range, {index}, index, num_layers};
    }
  }
  constexpr leader_set(std::int32_t num_layers,
                       std::initializer_list<std::int32_t> leaders) noexcept
      : leader_set(num_layers, std::span(leaders.begin(), leaders.size())) {}

  constexpr std::int32_t num_layers() const noexcept { return num_layers_; }
  constexpr layer_mask const& leaders() const noexcept { return leaders_; }
  constexpr layer_id source(layer_id layer) const noexcept { return leaders_.highest_up_to(layer); }

  /// Names a leader that the model does not have.
  constexpr status check() const noexcept { return misfit_; }

 private:
  layer_mask leaders_;
  std::int32_t num_layers_ = 0;
  status misfit_ = {};  // the first leader given that does not exist
};

STRATA_NAMESPACE_END
