// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Low-rank adapters (LoRA; Hu et al., 2021, arXiv:2106.09685): a matrix W [out, in] of a finished
// model becomes W + B A, with B [out, rank] and A [rank, in], and A and B alone are trained. B starts
// at zero, so that training starts from the finished model. There is no factor before B A: AdamW's
// steps do not depend on the size of a gradient, so that it would only scale the learning rate.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <strata/random.hpp>

#include "parameters.hpp"

namespace lm {

/// One matrix and its adapter, as they lie in their tables.
struct adapted_matrix {
  std::size_t entry = 0;    ///< of W in the model's table
  std::int64_t weight = 0;  ///< offset of W
  std::int64_t a = 0;       ///< of A [rank, in]
  std::int64_t b = 0;       ///< of B [out, rank]
  std::int64_t out = 0, in = 0;

  std::int64_t size() const noexcept { return out * in; }
};

/// The adapters of all matrices of a model but the embedding and the head.
struct adapter_table {
  std::int64_t rank = 0;
  tensor_table tensors;  ///< "layers.3.wq.a", "layers.3.wq.b", ...
  std::vector<adapted_matrix> matrices;

  adapter_table(model_config const& config, std::int64_t of_rank) : rank(of_rank) {
    auto const entries = make_tensor_table(config).entries;
    for (std::size_t i = 0; i < entries.size(); ++i) {
      auto const& e = entries[i];
      if (e.role == tensor_role::norm || !e.name.starts_with("layers.")) continue;
      adapted_matrix m;
      m.entry = i;
      m.weight = e.offset, m.out = e.rows, m.in = e.cols;
      m.a = tensors.size;
      tensors.add(e.name + ".a", rank, e.cols);
      m.b = tensors.size;
      tensors.add(e.name + ".b", e.rows, rank);
      matrices.push_back(m);
    }
  }

  std::int64_t largest() const noexcept {
    std::int64_t most = 0;
    for (auto const& m : matrices) most = m.size() > most ? m.size() : most;
    return most;
  }

  /// Draws every A with deviation 1 / sqrt(in), as `initialise` draws weights; B is left alone.
  void initialise(std::span<float> values, std::uint64_t seed) const {
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      auto const& m = matrices[i];
      auto const deviation = 1 / std::sqrt(static_cast<double>(m.in));
      for (std::int64_t at = 0; at < rank * m.in; at += 4) {
        double drawn[4] = {};
        detail::normals(
            strata::draw_words({seed, 1}, static_cast<std::uint32_t>(i),
                               strata::draw_purpose::weights, static_cast<std::uint32_t>(at / 4)),
            drawn);
        for (std::int64_t j = 0; j < 4 && at + j < rank * m.in; ++j)
          values[static_cast<std::size_t>(m.a + at + j)] = static_cast<float>(deviation * drawn[j]);
      }
    }
  }
};

/// What a run with adapters needs to go on: what they are added to, and as adapter_table lays them
/// out their values and AdamW's moments of these.
struct adapter_state {
  std::int64_t rank = 0;
  parameters<float> base;
  std::vector<float> values, first, second;
};
/// The same, elsewhere; null where there is none.
struct adapter_view {
  std::int64_t rank = 0;
  parameters<float> const* base = nullptr;
  std::span<float const> values = {}, first = {}, second = {};
};
inline adapter_view view_of(adapter_state const& s) noexcept {
  return {s.rank, &s.base, s.values, s.first, s.second};
}

}  // namespace lm
