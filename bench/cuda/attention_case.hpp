// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One case of bench/cuda/attention: what an attention_shape cannot say.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "../attention_shape.hpp"

namespace bench {

struct attention_case {
  std::string set;
  attention_shape shape;
  /// Lengths from 128 to the shape's context, log-uniform over the batch; peers draw the same.
  bool log_uniform = false;
  std::int32_t split_keys = 0;        ///< of the kernel; 0: as the device is best filled
  bool add_k = false, add_v = false;  ///< backward adds into dK, dV of the source
  bool deterministic = true;          ///< else it adds dQ up by atomics

  bool backward() const { return set == "backward"; }

  std::string name(char const* kernel, char const* codec) const {
    auto name = shape.name(set, kernel, codec);
    if (log_uniform) name += "/lengths:log_uniform";
    if (split_keys > 0) name += "/split:" + std::to_string(split_keys);
    if (add_k || add_v) name += std::string("/adds:") + (add_k ? "k" : "") + (add_v ? "v" : "");
    if (!deterministic) name += "/dq:atomic";
    return name;
  }

  /// Of sequence i of n: the middle of the i-th of n equal parts, and the sequences in an order
  /// that is not theirs.
  std::vector<std::int32_t> lengths() const {
    std::vector<std::int32_t> all(static_cast<std::size_t>(shape.batch), shape.context);
    for (std::int32_t i = 0; log_uniform && i < shape.batch; ++i) {
      auto const part = (i * 37 % shape.batch + 0.5) / shape.batch;
      all[static_cast<std::size_t>(i)] =
          static_cast<std::int32_t>(128 * std::pow(shape.context / 128.0, part));
    }
    return all;
  }
  double tokens() const {
    double sum = 0;
    for (auto const length : lengths()) sum += length;
    return sum;
  }
  /// Pairs of a query row and a key that it sees.
  double visible() const { return shape.rows * (tokens() - shape.batch * (shape.rows - 1) / 2.0); }

  /// Elements of K, and of V, that the cache has room for.
  std::int64_t kv_elements() const { return rooms().second * shape.kv_heads * shape.dim; }
  std::int64_t q_elements() const {
    return std::int64_t{shape.batch} * shape.rows * shape.q_heads * shape.dim;
  }
  /// Blocks, and tokens that they have room for.
  std::pair<std::int64_t, std::int64_t> rooms() const {
    if (shape.block == 0) return {shape.batch, std::int64_t{shape.batch} * shape.context};
    std::int64_t blocks = 0;
    for (auto const length : lengths()) blocks += (length + shape.block - 1) / shape.block;
    return {blocks, blocks * shape.block};
  }

  /// 2 products of forward, 5 of backward, over all visible pairs.
  double flops() const { return (backward() ? 10.0 : 4.0) * shape.q_heads * shape.dim * visible(); }
  /// What forward reads of memory at the very least, as attention_shape counts it. Backward reads
  /// its queries, outputs and their gradients, too, and the sums that it adds to.
  template <class Codec>
  double bytes() const {
    auto const d = shape.dim;
    auto const rows = tokens() * shape.kv_heads;
    auto const kv = 2 * rows * static_cast<double>(Codec::row_bytes(d) + Codec::scale_bytes(d));
    if (!backward()) return kv;
    return kv + 3 * 2.0 * static_cast<double>(q_elements()) + (add_k + add_v) * 4.0 * rows * d;
  }
};

/// As many sets of so many bytes as are needed in turn, so that none is found in the second-level
/// cache: 3 at least, 4 times the cache in all.
inline std::int64_t sets_in_turn(std::int64_t bytes, std::int64_t l2_bytes) {
  return std::max<std::int64_t>(3, (4 * l2_bytes + bytes - 1) / bytes);
}

}  // namespace bench
