// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Decode by plain multiply-adds: one pair of a query row and a query head at a time, in float, from
// any codec and for any head up to 1024. For heads that share nothing (one query head per KV head
// leaves 15 of 16 rows of a matrix product empty, and then these are 1.08 to 1.16 times as fast:
// TileOPs, commit 300d7640), for shapes that have no matrix kernel, and for rows whose values hold
// what is not finite.
//
// A key belongs to a group of lanes, each of which has 8 columns of it (or 8 in every 256): groups
// keep states of their own, so that nothing but the dot product crosses lanes until the end.
#pragma once

#include <cstddef>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/cuda/detail/chunk_reader.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/rotation.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>

// g++ takes the bounds of arrays in templates for conversions.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t decode_threads = 128;
inline constexpr std::int32_t decode_warps = decode_threads / warp_size;
inline constexpr std::int32_t most_fma_chunks = 4;
inline constexpr std::int32_t most_fma_dim = most_fma_chunks * chunk_elements * warp_size;

/// Chunks: of 8 columns, that a lane has of a key. Ahead: keys that it loads before it uses the
/// first, 4 of 16 bytes each for K and V in 16 bits: 64 KB on their way per multiprocessor at 4
/// blocks, of which 26 KB would do (4.3 TB/s, 0.8 us, 132 of them).
template <std::int32_t Chunks, class T, class View>
class fma_pair {
 public:
  using k_stored = stored_as<typename View::k_codec>;
  using k_reader = chunk_reader<typename k_stored::codec>;
  using v_reader = chunk_reader<typename View::v_codec>;
  static constexpr std::int32_t ahead = Chunks == 1 ? 4 : 1;

  static constexpr std::int64_t shared_bytes(std::int32_t k_dim, std::int32_t v_dim) {
    auto const results = decode_warps * (std::int64_t{v_dim} + 2);
    std::int64_t const query = k_stored::rotated ? k_dim : 0;
    return larger(results, query) * static_cast<std::int64_t>(sizeof(float));
  }

  /// Computes pair `pair` of a piece and stores its state. All threads of the block take part.
  template <thread_block Block>
  STRATA_DEVICE static void run(Block const& block, forward_args<T, View> const& args,
                                piece const& p, std::int32_t pair, float* shared) {
    fma_pair state(block, args, p, pair, shared);
    for (auto token = p.keys.begin; token < p.keys.end; token += ahead * state.stride_)
      state.take(block, token);
    state.merge_groups(block);
    state.merge_warps(block, shared, args.states, args.states.row(p.state, pair));
  }

 private:
  template <thread_block Block>
  STRATA_DEVICE fma_pair(Block const& block, forward_args<T, View> const& args, piece const& p,
                         std::int32_t pair, float* shared)
      : args_(args), keys_(p.keys), seq_(p.seq), head_(p.kv_head) {
    auto const& q = args.q;
    auto const& view = args.view;
    auto const chunks = ceil_divide(larger(view.k_dim, view.v_dim), chunk_elements);
    while (lanes_ < warp_size && lanes_ * Chunks < chunks) lanes_ *= 2;
    auto const lane = lane_of(block), groups = warp_size / lanes_;
    mine_ = warp_of(block) * groups + lane / lanes_;
    stride_ = decode_warps * groups;
    column_ = lane % lanes_ * chunk_elements;
    k_row_ = view.k.row(seq_, head_, view.kv_heads);
    v_row_ = view.v.row(seq_, head_, view.kv_heads);
    k_aligned_ = rows_aligned(view.k);
    v_aligned_ = rows_aligned(view.v);
    auto const at = pair_row(q, view, p.seq, p.kv_head, p.first_pair + pair);
    position_ = q.position(p.seq, static_cast<std::int32_t>(at / q.q_heads), p.keys.end_position);
    auto const* const from = q.q + at * view.k_dim;
    if constexpr (k_stored::rotated) {
      for (auto j = block.thread(); j < view.k_dim; j += decode_threads)
        shared[j] = strata::detail::widen(from[j]);
      block.sync();
      rotate_together(shared, view.k_dim, block.thread(), decode_threads, [&] { block.sync(); });
      take_query([&](std::int32_t j) { return shared[j]; });
      block.sync();
    } else {
      take_query([&](std::int32_t j) { return strata::detail::widen(from[j]); });
    }
  }

  /// A lane's columns of the query; element(j): the query's.
  template <class Element>
  STRATA_DEVICE void take_query(Element const& element) {
    for (std::int32_t c = 0; c < Chunks; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i) {
        auto const j = column(c) + i;
        query_[c][i] = j < args_.view.k_dim ? element(j) : 0.f;
      }
  }

  STRATA_DEVICE std::int32_t column(std::int32_t c) const {
    return column_ + c * lanes_ * chunk_elements;
  }

  /// `ahead` keys of every group, from `token` on. What is not seen is read at the first key
  /// instead, so that all loads are on their way before the first is used.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::int32_t token) {
    bool seen[ahead];
    float score[ahead], key[ahead][Chunks][chunk_elements], value[ahead][Chunks][chunk_elements];
    unrolled<ahead>([&](std::int32_t a) {
      auto const t = token + a * stride_ + mine_;
      auto const exists = t < keys_.end ? t : keys_.begin;
      seen[a] = t < keys_.end && args_.q.rule.sees(position_, keys_.position(exists));
      load(block, seen[a] ? t : keys_.begin, key[a], value[a]);
    });
    unrolled<ahead>([&](std::int32_t a) {
      float dot = 0;
      for (std::int32_t c = 0; c < Chunks; ++c)
        for (std::int32_t i = 0; i < chunk_elements; ++i) dot += query_[c][i] * key[a][c][i];
      for (auto mask = lanes_ / 2; mask > 0; mask /= 2) dot += block.shuffle_xor(dot, mask);
      score[a] = seen[a] ? args_.rule.score(dot) * log2_of_e : minus_infinity;
    });
    float joint = max_;
    for (auto const s : score) joint = s > joint || s != s ? s : joint;
    rescale(decay(block, max_, joint));
    max_ = joint;
    unrolled<ahead>([&](std::int32_t a) {
      float const weight = decay(block, score[a], max_);
      if (weight == 0) return;  // not even an infinite value counts
      sum_ += weight;
      for (std::int32_t c = 0; c < Chunks; ++c)
        for (std::int32_t i = 0; i < chunk_elements; ++i) out_[c][i] += weight * value[a][c][i];
    });
  }

  /// Loads a lane's columns of a key and its value.
  template <thread_block Block>
  STRATA_DEVICE void load(Block const& block, std::int32_t t, float (&key)[Chunks][chunk_elements],
                          float (&value)[Chunks][chunk_elements]) const {
    auto const &k = args_.view.k, &v = args_.view.v;
    unrolled<Chunks>([&](std::int32_t c) {
      k_reader::load(block, k.at(k_row_, head_, t), k.scales_at(k_row_, head_, t), column(c),
                     args_.view.k_dim, k_aligned_, key[c]);
      v_reader::load(block, v.at(v_row_, head_, t), v.scales_at(v_row_, head_, t), column(c),
                     args_.view.v_dim, v_aligned_, value[c]);
    });
  }

  STRATA_DEVICE void rescale(float factor) {
    sum_ *= factor;
    for (auto& chunk : out_)
      for (auto& x : chunk) x = factor == 0 ? 0.f : x * factor;
  }

  template <thread_block Block>
  STRATA_DEVICE void merge_groups(Block const& block) {
    for (auto mask = lanes_; mask < warp_size; mask *= 2) {
      float const other = block.shuffle_xor(max_, mask);
      float const joint = other > max_ || other != other ? other : max_;
      rescale(decay(block, max_, joint));
      max_ = joint;
      sum_ += block.shuffle_xor(sum_, mask);
      for (auto& chunk : out_)
        for (auto& x : chunk) x += block.shuffle_xor(x, mask);
    }
  }

  /// shared: [warps, v_dim + 2], as the rows of states.
  template <thread_block Block>
  STRATA_DEVICE void merge_warps(Block const& block, float* shared, state_memory const& states,
                                 float* to) const {
    auto const width = states.v_dim + 2, lane = lane_of(block);
    float* const own = shared + warp_of(block) * width;
    for (std::int32_t c = 0; c < Chunks && lane < lanes_; ++c)
      for (std::int32_t i = 0; i < chunk_elements; ++i)
        if (column(c) + i < states.v_dim) own[column(c) + i] = out_[c][i];
    if (lane == 0) states.store_softmax(own, max_, sum_);
    block.sync();
    float joint = minus_infinity, sum = 0, weight[decode_warps];
    for (std::int32_t w = 0; w < decode_warps; ++w) {
      float const max = shared[w * width + states.v_dim];
      joint = max > joint || max != max ? max : joint;
    }
    for (std::int32_t w = 0; w < decode_warps; ++w) {
      weight[w] = decay(block, shared[w * width + states.v_dim], joint);
      sum += weight[w] * shared[w * width + states.v_dim + 1];
    }
    for (auto j = block.thread(); j < states.v_dim; j += decode_threads) {
      float x = 0;
      for (std::int32_t w = 0; w < decode_warps; ++w)
        if (weight[w] != 0) x += weight[w] * shared[w * width + j];
      to[j] = x;
    }
    if (block.thread() == 0) states.store_softmax(to, joint, sum);
    block.sync();
  }

  forward_args<T, View> const& args_;
  key_range keys_;
  std::int32_t seq_, head_;
  std::int64_t k_row_ = 0, v_row_ = 0;
  std::int32_t position_ = 0;
  std::int32_t lanes_ = 1;   // of a group
  std::int32_t mine_ = 0;    // this group, of all groups of the block
  std::int32_t stride_ = 0;  // groups of the block
  std::int32_t column_ = 0;
  bool k_aligned_ = false, v_aligned_ = false;
  float max_ = minus_infinity, sum_ = 0;
  float query_[Chunks][chunk_elements];
  float out_[Chunks][chunk_elements] = {};
};

/// The first launch of a forward call by plain multiply-adds; `split.block_rows` is 1.
template <std::int32_t Chunks, class T, class View, thread_block Block>
STRATA_DEVICE inline void decode_fma_body(Block const& block, forward_args<T, View> const& args) {
  using line = schedule<Block, T, View>;
  block.let_next_begin();
  auto* const shared = reinterpret_cast<float*>(block.memory() + schedule_bytes(decode_threads));
  line(block, args.q, args.view, args.split, decode_threads, block.memory())
      .for_each_piece([&](piece const& p) {
        for (std::int32_t pair = 0; pair < p.pairs; ++pair)
          fma_pair<Chunks, T, View>::run(block, args, p, pair, shared);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END

#pragma GCC diagnostic pop
