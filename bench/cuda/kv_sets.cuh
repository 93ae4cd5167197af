// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// K and V of a case on the device, several times.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include <strata/cache/view.hpp>

#include "../random_floats.hpp"
#include "attention_case.hpp"
#include "device.cuh"

namespace bench {

/// Random elements of a codec, and their scales where it keeps them apart. One memory for all
/// cases: taking and filling it takes longer than a case runs.
template <class Codec>
class device_rows {
 public:
  /// At least `elements`, or null where the device has no memory for them. What was given before is
  /// gone.
  static device_rows const* get(std::int64_t elements) {
    static std::unique_ptr<device_rows> rows;
    auto const count = (elements + dim - 1) / dim;
    if (rows == nullptr || rows->count_ < count) {
      rows.reset();  // before the larger one is made
      if (count * (Codec::row_bytes(dim) + Codec::scale_bytes(dim)) > free_memory()) return nullptr;
      rows = std::make_unique<device_rows>(count);
    }
    return rows.get();
  }

  explicit device_rows(std::int64_t count)
      : count_(count),
        data_(count * Codec::row_bytes(dim)),
        scales_(count * Codec::scale_bytes(dim)) {
    auto const distinct = std::min(count, period);
    auto const numbers = random_floats(distinct * dim, 3);
    std::vector<std::byte> data(static_cast<std::size_t>(distinct * Codec::row_bytes(dim)));
    std::vector<std::byte> scales(static_cast<std::size_t>(distinct * Codec::scale_bytes(dim)));
    for (std::int64_t i = 0; i < distinct; ++i)
      Codec::encode(numbers.data() + i * dim, dim, data.data() + i * Codec::row_bytes(dim),
                    scales.data() + i * Codec::scale_bytes(dim));
    repeat(data_, data);
    repeat(scales_, scales);
  }

  std::byte const* data() const { return data_.data(); }
  std::byte const* scales() const { return scales_.data(); }

 private:
  /// Rows of 128 elements, whatever the heads of a case are: a span is never cut. A prime number of
  /// them differ, so that heads and tokens do not meet the same row in step.
  static constexpr std::int32_t dim = 128;
  static constexpr std::int64_t period = 8191;

  static void repeat(device_array<std::byte> const& to, std::vector<std::byte> const& from) {
    auto done = static_cast<std::int64_t>(from.size());
    if (done == 0) return;
    require(cudaMemcpy(to.data(), from.data(), from.size(), cudaMemcpyHostToDevice));
    for (; done < to.size(); done *= 2)
      require(cudaMemcpy(to.data() + done, to.data(),
                         static_cast<std::size_t>(std::min(done, to.size() - done)),
                         cudaMemcpyDeviceToDevice));
    require(cudaDeviceSynchronize());
  }

  std::int64_t count_;
  device_array<std::byte> data_, scales_;
};

/// Views of a case's K and V.
template <class Codec>
class kv_sets {
 public:
  using view = strata::kv_view<Codec>;

  kv_sets(attention_case const& c, std::int64_t count)
      : case_(c), count_(count), source_(device_rows<Codec>::get(2 * c.kv_elements() * count)) {
    auto const lengths = c.lengths();
    if (c.log_uniform) lengths_ = device_array<std::int32_t>(lengths);
    if (c.shape.block == 0) return;
    std::vector<std::int32_t> order(static_cast<std::size_t>(c.rooms().first));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::minstd_rand(4));
    std::vector<std::int32_t> table(lengths.size() * blocks_per_row());
    std::size_t next = 0;
    for (std::size_t s = 0; s < lengths.size(); ++s)
      for (std::int32_t b = 0; b * c.shape.block < lengths[s]; ++b)
        table[s * blocks_per_row() + static_cast<std::size_t>(b)] = order[next++];
    table_ = device_array<std::int32_t>(table);
  }

  bool ready() const { return source_ != nullptr; }
  std::int64_t count() const { return count_; }

  view at(std::int64_t set) const {
    view v;
    v.k = tensor(2 * set);
    v.v = tensor(2 * set + 1);
    v.rows.num_seqs = case_.shape.batch;
    v.rows.lengths = lengths_.data();
    v.rows.length = case_.shape.context;
    v.kv_heads = case_.shape.kv_heads;
    v.k_dim = v.v_dim = case_.shape.dim;
    return v;
  }

 private:
  std::size_t blocks_per_row() const {
    auto const& s = case_.shape;
    return static_cast<std::size_t>((s.context + s.block - 1) / s.block);
  }

  strata::tensor_blocks tensor(std::int64_t index) const {
    auto const& s = case_.shape;
    auto const rows = index * (case_.kv_elements() / s.dim);
    auto const size = s.block > 0 ? s.block : s.context;
    auto blocks = strata::nhd_blocks<Codec>(source_->data() + rows * Codec::row_bytes(s.dim), size,
                                            s.kv_heads, s.dim,
                                            source_->scales() + rows * Codec::scale_bytes(s.dim));
    if (s.block > 0) {
      blocks.block_table = table_.data();
      blocks.blocks_per_row = static_cast<std::int64_t>(blocks_per_row());
    }
    return blocks;
  }

  attention_case case_;
  std::int64_t count_;
  device_rows<Codec> const* source_;
  device_array<std::int32_t> lengths_, table_;
};

}  // namespace bench
