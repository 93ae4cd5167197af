// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention calls of a kernel on random K/V, over and over, each on K/V that the last-level cache
// has forgotten.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <vector>

#include <strata/attention/kernel.hpp>
#include <strata/cache/element.hpp>
#include <strata/cache/view.hpp>

#include "attention_shape.hpp"
#include "machine.hpp"

namespace bench {

/// Random rows of a codec, and their scales where it keeps them apart. One memory for all cases of
/// a codec and head dimension, since it takes longer to fill than a case takes to run.
template <class Codec>
class random_rows {
 public:
  /// At least `count` rows. What was given before is gone.
  static random_rows const& get(std::int32_t dim, std::int64_t count) {
    static std::map<std::int32_t, std::unique_ptr<random_rows>> of_dim;
    auto& rows = of_dim[dim];
    if (rows == nullptr || rows->count_ < count) {
      rows.reset();  // before the larger one is made
      rows = std::make_unique<random_rows>(dim, count);
    }
    return *rows;
  }

  random_rows(std::int32_t dim, std::int64_t count)
      : count_(count),
        data_(count * Codec::row_bytes(dim)),
        scales_(count * Codec::scale_bytes(dim)) {
    auto const numbers = random_floats(period * dim, 3);
    float const head_scale = 1 / 448.0f;
    for (std::int64_t i = 0; i < count && strata::head_scaled_codec<Codec>; ++i)
      std::memcpy(scales_.get().data() + i * Codec::scale_bytes(dim), &head_scale, sizeof(float));
    for (std::int64_t i = 0; i < std::min(count, period); ++i)
      Codec::encode(numbers.data() + i * dim, dim, data_.get().data() + i * Codec::row_bytes(dim),
                    scales_.get().data() + i * Codec::scale_bytes(dim));
    repeat(data_.get(), static_cast<std::size_t>(period * Codec::row_bytes(dim)));
    repeat(scales_.get(), static_cast<std::size_t>(period * Codec::scale_bytes(dim)));
  }

  std::byte const* data() const { return data_.get().data(); }
  std::byte const* scales() const { return scales_.get().data(); }
  /// The rows, for a storage to borrow.
  std::span<std::byte> memory() const { return data_.get(); }

 private:
  /// Rows that differ. A prime, so that heads and tokens do not meet the same row in step.
  static constexpr std::int64_t period = 8191;

  static void repeat(std::span<std::byte> bytes, std::size_t size) {
    for (auto done = size; done < bytes.size(); done += size)
      std::memcpy(bytes.data() + done, bytes.data(), std::min(size, bytes.size() - done));
  }

  std::int64_t count_;
  aligned_memory data_, scales_;
};

/// The K/V of a shape, several times: at least two, and more in all than caches hold.
template <class Codec>
class kv_sets {
  using k_codec = typename codecs_of<Codec>::k_codec;
  using v_codec = typename codecs_of<Codec>::v_codec;

 public:
  using view = strata::kv_view<k_codec, v_codec>;

  explicit kv_sets(attention_shape const& shape)
      : shape_(shape), rows_(static_cast<std::int64_t>(shape.kv_rows())) {
    auto const bytes =
        rows_ * (stored_bytes<k_codec>(shape.dim) + stored_bytes<v_codec>(shape.dim));
    count_ = std::max<std::int64_t>(2, (memory_beyond_caches() + bytes - 1) / bytes);
    k_ = &random_rows<k_codec>::get(shape.dim, 2 * rows_ * count_);
    v_ = &random_rows<v_codec>::get(shape.dim, 2 * rows_ * count_);
    if (shape.block == 0) return;
    table_.resize(static_cast<std::size_t>(shape.batch) * blocks_per_row());
    std::iota(table_.begin(), table_.end(), 0);
    std::shuffle(table_.begin(), table_.end(), std::minstd_rand(4));
  }

  std::int64_t count() const { return count_; }

  view at(std::int64_t set) const {
    view v;
    v.k = tensor(*k_, 2 * set);
    v.v = tensor(*v_, 2 * set + 1);
    v.rows.num_seqs = shape_.batch;
    v.rows.length = shape_.context;
    v.kv_heads = shape_.kv_heads;
    v.k_dim = v.v_dim = shape_.dim;
    return v;
  }

 private:
  std::size_t blocks_per_row() const {
    return static_cast<std::size_t>((shape_.context + shape_.block - 1) / shape_.block);
  }

  template <class C>
  strata::tensor_blocks tensor(random_rows<C> const& source, std::int64_t index) const {
    auto const first = index * rows_;
    auto const* const data = source.data() + first * C::row_bytes(shape_.dim);
    auto const* const scales = source.scales() + first * C::scale_bytes(shape_.dim);
    auto const size = shape_.block > 0 ? shape_.block : shape_.context;
    auto blocks = shape_.heads_first
                      ? strata::hnd_blocks<C>(data, size, shape_.kv_heads, shape_.dim, scales)
                      : strata::nhd_blocks<C>(data, size, shape_.kv_heads, shape_.dim, scales);
    if (shape_.block > 0) {
      blocks.block_table = table_.data();
      blocks.blocks_per_row = static_cast<std::int64_t>(blocks_per_row());
    }
    return blocks;
  }

  attention_shape shape_;
  std::int64_t rows_, count_ = 0;
  random_rows<k_codec> const* k_ = nullptr;
  random_rows<v_codec> const* v_ = nullptr;
  std::vector<std::int32_t> table_;
};

/// Queries of a shape, in float, as everybody takes them.
inline std::vector<float> random_queries(attention_shape const& shape, std::uint32_t seed = 1) {
  return random_floats(std::int64_t{shape.batch} * shape.rows * shape.q_heads * shape.dim, seed);
}

/// Forward calls of a kernel, with queries and outputs of T.
template <class Kernel, class Codec, class T = float>
class forward_call {
 public:
  forward_call(strata::thread_pool& pool, attention_shape const& shape)
      : pool_(pool), sets_(shape) {
    for (auto const x : random_queries(shape)) q_.push_back(strata::detail::narrow<T>(x));
    out_.resize(q_.size());
    rows_.q = q_.data();
    rows_.out = out_.data();
    rows_.num_seqs = shape.batch;
    rows_.rows_per_seq = shape.rows;
    rows_.q_heads = shape.q_heads;
    workspace_ = std::make_unique<aligned_memory>(
        kernel_.workspace_bytes(rows_, sets_.at(0), pool.num_shares()));
  }

  std::vector<T> const& out() const { return out_; }

  void run() {
    require(attend(pool_, kernel_, rows_, sets_.at(next_), workspace_->get()));
    next_ = (next_ + 1) % sets_.count();
  }

 private:
  strata::thread_pool& pool_;
  Kernel kernel_;
  kv_sets<Codec> sets_;
  std::vector<T> q_, out_;
  strata::query_rows<T> rows_;
  std::unique_ptr<aligned_memory> workspace_;
  std::int64_t next_ = 0;
};

/// Backward calls of a kernel, in float, on one set of K/V: what is read from memory is little.
template <class Kernel>
class backward_call {
 public:
  backward_call(strata::thread_pool& pool, attention_shape const& shape)
      : pool_(pool),
        view_(kv_sets<strata::f32_codec>(shape).at(0)),
        q_(random_queries(shape)),
        d_out_(random_queries(shape, 2)),
        out_(q_.size()),
        d_q_(q_.size()),
        lse_(q_.size() / static_cast<std::size_t>(shape.dim)),
        dk_(static_cast<std::size_t>(shape.kv_rows()) * static_cast<std::size_t>(shape.dim)),
        dv_(dk_.size()) {
    rows_.q = q_.data();
    rows_.out = out_.data();
    rows_.lse = lse_.data();
    rows_.num_seqs = shape.batch;
    rows_.rows_per_seq = shape.rows;
    rows_.q_heads = shape.q_heads;
    grad_ = strata::kv_grad<float>::dense(dk_.data(), dv_.data(), shape.context, shape.kv_heads,
                                          shape.dim, shape.dim);
    auto const shares = pool.num_shares();
    workspace_ = std::make_unique<aligned_memory>(
        std::max(kernel_.workspace_bytes(rows_, view_, shares),
                 kernel_.backward_workspace_bytes(rows_, view_, shares)));
    require(attend(pool_, kernel_, rows_, view_, workspace_->get()));
  }

  void run() {
    float const* const d_out = d_out_.data();
    require(attend_backward(pool_, kernel_, rows_, view_, d_out, d_q_.data(), grad_,
                            workspace_->get()));
  }

 private:
  strata::thread_pool& pool_;
  Kernel kernel_;
  strata::kv_view<strata::f32_codec> view_;
  std::vector<float> q_, d_out_, out_, d_q_, lse_, dk_, dv_;
  strata::query_rows<float> rows_;
  strata::kv_grad<float> grad_;
  std::unique_ptr<aligned_memory> workspace_;
};

}  // namespace bench
