// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention as the textbook has it: whole matrices, in double, no code of the library. K and V are
// dense, positions are given one by one, the mask is written out.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace support {

/// One sequence's dense attention. Every tensor in double.
struct dense_attention {
  std::int32_t q_heads = 1, kv_heads = 1, k_dim = 1, v_dim = 1;
  double scale = 0;         ///< 0: 1 / sqrt(k_dim)
  double softcap = 0;       ///< 0: none
  std::int64_t window = 0;  ///< 0: none
  bool causal = true;
  std::vector<double> sinks = {};  ///< [q_heads] or empty

  struct result {
    std::vector<double> out;      // [rows, q_heads, v_dim]
    std::vector<double> lse;      // [rows, q_heads]
    std::vector<double> weights;  // [rows, q_heads, keys], the matrix P
  };

  /// q: [rows, q_heads, k_dim]; k: [keys, kv_heads, k_dim]; v: [keys, kv_heads, v_dim].
  result forward(std::vector<double> const& q, std::vector<std::int32_t> const& q_positions,
                 std::vector<double> const& k, std::vector<double> const& v,
                 std::vector<std::int32_t> const& k_positions) const {
    auto const rows = q_positions.size(), keys = k_positions.size();
    result r{std::vector<double>(rows * size(q_heads) * size(v_dim)),
             std::vector<double>(rows * size(q_heads)),
             std::vector<double>(rows * size(q_heads) * keys)};
    for (std::size_t i = 0; i < rows; ++i)
      for (std::size_t h = 0; h < size(q_heads); ++h) {
        auto const at = i * size(q_heads) + h;
        auto const kv_head = h / size(q_heads / kv_heads);
        std::vector<double> scores(keys, -INFINITY);
        for (std::size_t t = 0; t < keys; ++t)
          if (sees(q_positions[i], k_positions[t]))
            scores[t] =
                score(&q[at * size(k_dim)], &k[(t * size(kv_heads) + kv_head) * size(k_dim)]);
        r.lse[at] = log_sum(scores, h);
        for (std::size_t t = 0; t < keys; ++t) {
          auto const weight = scores[t] == -INFINITY ? 0 : std::exp(scores[t] - r.lse[at]);
          r.weights[at * keys + t] = weight;
          for (std::size_t j = 0; j < size(v_dim); ++j)
            r.out[at * size(v_dim) + j] +=
                weight * v[(t * size(kv_heads) + kv_head) * size(v_dim) + j];
        }
      }
    return r;
  }

  bool sees(std::int32_t query, std::int32_t key) const {
    bool const behind = !causal || key <= query;
    bool const near = window == 0 || std::int64_t{query} - key < window;
    return behind && near;
  }

 private:
  static std::size_t size(std::int32_t n) { return static_cast<std::size_t>(n); }

  double score(double const* q, double const* k) const {
    double dot = 0;
    for (std::size_t i = 0; i < size(k_dim); ++i) dot += q[i] * k[i];
    dot *= scale > 0 ? scale : 1 / std::sqrt(static_cast<double>(k_dim));
    return softcap > 0 ? softcap * std::tanh(dot / softcap) : dot;
  }

  double log_sum(std::vector<double> const& scores, std::size_t head) const {
    double highest = sinks.empty() ? -INFINITY : sinks[head];
    for (auto const s : scores) highest = std::fmax(highest, s);
    if (highest == -INFINITY) return -INFINITY;
    double sum = sinks.empty() ? 0 : std::exp(sinks[head] - highest);
    for (auto const s : scores) sum += std::exp(s - highest);
    return highest + std::log(sum);
  }
};

}  // namespace support
