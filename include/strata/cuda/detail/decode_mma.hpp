// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Decode by matrix products: up to 16 pairs of a query row and a query head of one KV head are the
// rows of A, so K and V are read once for all of them. Four warps take 16 keys each in turn; each
// brings its own K and V into its own part of shared memory, a few tiles ahead, and has softmax and
// sums of its own: the warps of a block meet only when a piece ends.
//
// Bytes on their way: 4 warps x 3 tiles x 16 keys x 512 bytes (head_dim 128, 16 bits) are 96 KB a
// block, and two blocks fit into a multiprocessor; 26 KB each would do (4.3 TB/s, 0.8 us, 132 of
// them).
//
// Weights are rounded to the queries' 16 bits before they meet values, as everywhere; sums of weights
// are not. Rows whose result is not finite are computed again by plain multiply-adds: in a matrix
// product a masked key of infinite value would count, 0 times infinity.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/cuda/detail/decode_fma.hpp>
#include <strata/cuda/detail/fragments.hpp>
#include <strata/cuda/detail/partial.hpp>
#include <strata/cuda/detail/schedule.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/cuda/detail/tile_reader.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

inline constexpr std::int32_t decode_tile_keys = 16;  // of a warp
inline constexpr std::int32_t decode_stages = 3;

/// One warp's tiles in shared memory.
template <class T, class View, std::int32_t Dim>
struct decode_tiles {
  using weight = weight_element_t<typename View::v_codec>;
  using k_reader = tile_reader<typename View::k_codec, T, Dim>;
  using v_reader = tile_reader<typename View::v_codec, weight, Dim>;
  static constexpr std::int32_t v_offset = decode_tile_keys * k_reader::pitch;
  static constexpr std::int32_t k_scale_offset = v_offset + decode_tile_keys * v_reader::pitch;
  static constexpr std::int32_t v_scale_offset =
      k_scale_offset + decode_tile_keys * k_reader::scale_bytes;
  static constexpr std::int32_t stage_bytes =
      v_scale_offset + decode_tile_keys * v_reader::scale_bytes;
  static_assert(stage_bytes % 16 == 0);
  static constexpr std::int32_t warp_bytes = decode_stages * stage_bytes;

  /// Room for the tiles, and later for the warps' results; then for those of plain multiply-adds.
  static constexpr std::int32_t bytes() {
    constexpr std::int32_t results =
        decode_warps * fragment_rows * (Dim + 2) * static_cast<std::int32_t>(sizeof(float));
    return decode_warps * warp_bytes > results ? decode_warps * warp_bytes : results;
  }
};

/// Brings a warp's tiles of one KV head into shared memory. Lanes 0..15 know where the K of the
/// tile's tokens lies, lanes 16..31 where the V does: each token's place is found once, a tile ahead
/// of the copies, which ask the lanes for it.
template <class T, class View, std::int32_t Dim>
class tile_copier {
 public:
  using tiles = decode_tiles<T, View, Dim>;
  using k_reader = typename tiles::k_reader;
  using v_reader = typename tiles::v_reader;

  template <thread_block Block>
  STRATA_DEVICE tile_copier(Block const& block, View const& view, piece const& p)
      : view_(view),
        keys_(p.keys),
        head_(p.kv_head),
        is_k_(lane_of(block) < decode_tile_keys),
        own_token_(lane_of(block) % decode_tile_keys),
        row_(is_k_ ? view.k.row(p.seq, head_, view.kv_heads)
                   : view.v.row(p.seq, head_, view.kv_heads)) {}

  /// Finds the tokens from `first` on.
  STRATA_DEVICE void find(std::int32_t first) {
    auto const token = first + own_token_;
    place_ = nowhere;
    if (token < keys_.begin || token >= keys_.end) return;
    auto const& blocks = is_k_ ? view_.k : view_.v;
    place_ = blocks.at(row_, head_, token) - blocks.data;
    if constexpr (k_reader::span > 0 || v_reader::span > 0)
      scale_place_ = blocks.scales_at(row_, head_, token);
  }

  /// Sends what was found last on its way.
  template <thread_block Block>
  STRATA_DEVICE void copy(Block const& block, std::byte* stage) const {
    copy_rows<k_reader>(block, view_.k.data, stage, 0);
    copy_rows<v_reader>(block, view_.v.data, stage + tiles::v_offset, decode_tile_keys);
    if constexpr (k_reader::span > 0)
      if (is_k_) copy_scales<k_reader>(block, stage + tiles::k_scale_offset);
    if constexpr (v_reader::span > 0)
      if (!is_k_) copy_scales<v_reader>(block, stage + tiles::v_scale_offset);
  }

 private:
  template <class Reader, thread_block Block>
  STRATA_DEVICE void copy_rows(Block const& block, std::byte const* data, std::byte* tile,
                               std::int32_t first_lane) const {
    constexpr std::int32_t pieces = Reader::row_bytes / 16;
    for (std::int32_t i = lane_of(block); i < decode_tile_keys * pieces; i += warp_size) {
      auto const row = i / pieces, at = i % pieces * 16;
      auto const place = block.shuffle(place_, first_lane + row);
      block.template copy_async<16>(tile + row * Reader::pitch + at,
                                    data + (place == nowhere ? 0 : place + at), place != nowhere);
    }
  }
  template <class Reader, thread_block Block>
  STRATA_DEVICE void copy_scales(Block const& block, std::byte* scales) const {
    constexpr std::int32_t bytes = Reader::scale_bytes, step = bytes % 16 == 0 ? 16 : bytes;
    for (std::int32_t at = 0; at < bytes; at += step)
      block.template copy_async<step>(scales + own_token_ * bytes + at, scale_place_ + at,
                                      place_ != nowhere);
  }

  static constexpr std::int64_t nowhere = (std::numeric_limits<std::int64_t>::min)();

  View const& view_;
  key_range keys_;
  std::int32_t head_;
  bool is_k_;
  std::int32_t own_token_;
  std::int64_t row_;
  std::int64_t place_ = nowhere;  // from the beginning of the tensor
  std::byte const* scale_place_ = nullptr;
};

/// What the two rows of a lane see.
struct fragment_sight {
  std::int32_t low[2], high[2];    // the keys above low and up to high
  std::int32_t low_max, high_min;  // of all 16 rows

  STRATA_DEVICE bool sees(std::int32_t row, std::int32_t position) const {
    return position > low[row] && position <= high[row];
  }
};

/// The rows of one piece in one warp.
template <class T, class View, std::int32_t Dim>
class mma_rows {
 public:
  using tiles = decode_tiles<T, View, Dim>;
  using k_reader = typename tiles::k_reader;
  using v_reader = typename tiles::v_reader;
  static constexpr std::int32_t steps = Dim / key_columns, parts = Dim / value_columns;

  template <thread_block Block>
  STRATA_DEVICE mma_rows(Block const& block, forward_args<T, View> const& args, piece const& p)
      : args_(args), keys_(p.keys) {
    auto const& q = args.q;
    std::int64_t at[2];
    for (std::int32_t i = 0; i < 2; ++i) {
      // Rows that are none repeat the last one: they are computed and dropped.
      auto const pair = smaller(fragment_row(lane_of(block), 2 * i), p.pairs - 1);
      at[i] = pair_row(q, args.view, p.seq, p.kv_head, p.first_pair + pair);
      look(i, q.position(p.seq, static_cast<std::int32_t>(at[i] / q.q_heads), keys_.end_position));
    }
    sight_.low_max = larger(sight_.low[0], sight_.low[1]);
    sight_.high_min = smaller(sight_.high[0], sight_.high[1]);
    for (std::int32_t mask = 4; mask < warp_size; mask *= 2) {
      sight_.low_max = larger(sight_.low_max, block.shuffle_xor(sight_.low_max, mask));
      sight_.high_min = smaller(sight_.high_min, block.shuffle_xor(sight_.high_min, mask));
    }
    for (std::int32_t step = 0; step < steps; ++step)
      for (std::int32_t word = 0; word < 4; ++word) {
        auto const column = k_reader::query_column(step, lane_of(block) % 4, word);
        std::memcpy(&query_[step][word], q.q + at[word % 2] * Dim + column, sizeof(std::uint32_t));
      }
  }

  /// Takes 16 keys from `first` on, which lie in `stage`.
  template <thread_block Block>
  STRATA_DEVICE void take(Block const& block, std::byte const* stage, std::int32_t first) {
    float scores[2][4] = {};
    multiply_keys(block, stage, scores);
    score(block, first, scores);
    weigh(block, scores);
    add_values(block, stage, scores);
  }

  /// Stores what this warp has: results [16, Dim + 2], as the rows of states.
  template <thread_block Block>
  STRATA_DEVICE void store(Block const& block, float* results) {
    auto const lane = lane_of(block);
    for (std::int32_t i = 0; i < 2; ++i) {
      for (std::int32_t mask = 1; mask < 4; mask *= 2) sum_[i] += block.shuffle_xor(sum_[i], mask);
      float* const row = results + fragment_row(lane, 2 * i) * (Dim + 2);
      for (std::int32_t c = 0; c < 2; ++c)
        for (std::int32_t part = 0; part < parts; ++part)
          for (std::int32_t j = 0; j < 4; ++j)
            row[v_reader::value_column(part, j, fragment_column(lane, c))] =
                out_[part * 4 + j][2 * i + c];
      if (lane % 4 == 0) row[Dim] = max_[i], row[Dim + 1] = sum_[i];
    }
  }

 private:
  STRATA_DEVICE void look(std::int32_t i, std::int32_t position) {
    auto const& rule = args_.q.rule;
    auto const low =
        larger<std::int64_t>(std::int64_t{position} - rule.window, strata::detail::least_int32);
    sight_.low[i] = static_cast<std::int32_t>(low);
    sight_.high[i] = rule.causal ? position : strata::detail::most_int32;
  }

  template <thread_block Block>
  STRATA_DEVICE void multiply_keys(Block const& block, std::byte const* stage,
                                   float (&scores)[2][4]) const {
    float sums[2][4] = {};
    for (std::int32_t step = 0; step < steps; ++step) {
      std::uint32_t b[2][2];
      k_reader::keys(block, stage, step, b);
      for (std::int32_t n = 0; n < 2; ++n)
        block.template multiply_add<T>(sums[n], query_[step], b[n]);
      if constexpr (k_reader::span > 0)
        if ((step + 1) * key_columns % k_reader::span == 0)
          add_scaled(block, stage, (step + 1) * key_columns / k_reader::span - 1, sums, scores);
    }
    if constexpr (k_reader::span == 0)
      for (std::int32_t n = 0; n < 2; ++n)
        for (std::int32_t i = 0; i < 4; ++i) scores[n][i] = sums[n][i];
  }
  template <thread_block Block>
  STRATA_DEVICE void add_scaled(Block const& block, std::byte const* stage, std::int32_t span,
                                float (&sums)[2][4], float (&scores)[2][4]) const {
    for (std::int32_t n = 0; n < 2; ++n)
      for (std::int32_t i = 0; i < 4; ++i) {
        auto const key = n * fragment_columns + fragment_column(lane_of(block), i);
        scores[n][i] += sums[n][i] * scale<k_reader>(stage + tiles::k_scale_offset, key, span);
        sums[n][i] = 0;
      }
  }
  template <class Reader>
  STRATA_DEVICE static float scale(std::byte const* scales, std::int32_t key, std::int32_t span) {
    float16 x;
    std::memcpy(&x, scales + key * Reader::scale_bytes + 2 * span, sizeof x);
    return to_float(x);
  }

  /// From dot products to scores in base 2; -inf where a row does not see a key.
  template <thread_block Block>
  STRATA_DEVICE void score(Block const& block, std::int32_t first, float (&scores)[2][4]) const {
    auto const last = first + decode_tile_keys - 1;
    bool const all = first >= keys_.begin && last < keys_.end &&
                     keys_.position(first) > sight_.low_max &&
                     keys_.position(last) <= sight_.high_min;
    for (std::int32_t n = 0; n < 2; ++n)
      for (std::int32_t i = 0; i < 4; ++i) {
        auto const key = first + n * fragment_columns + fragment_column(lane_of(block), i);
        bool const seen = all || (key >= keys_.begin && key < keys_.end &&
                                  sight_.sees(i / 2, keys_.position(key)));
        scores[n][i] = seen ? args_.rule.score(scores[n][i]) * log2_of_e : minus_infinity;
      }
  }

  /// From scores to weights; sums so far are brought to the new maximum.
  template <thread_block Block>
  STRATA_DEVICE void weigh(Block const& block, float (&scores)[2][4]) {
    float factor[2];
    for (std::int32_t i = 0; i < 2; ++i) {
      float joint = max_[i];
      for (auto const& s : scores)
        for (std::int32_t c = 0; c < 2; ++c) joint = larger(joint, s[2 * i + c]);
      for (std::int32_t mask = 1; mask < 4; mask *= 2)
        joint = larger(joint, block.shuffle_xor(joint, mask));
      factor[i] = decay(block, max_[i], joint);
      max_[i] = joint;
      sum_[i] *= factor[i];
      for (auto& s : scores)
        for (std::int32_t c = 0; c < 2; ++c) {
          auto& x = s[2 * i + c];
          x = decay(block, x, joint);
          sum_[i] += x;
        }
    }
    if (!block.any(factor[0] != 1 || factor[1] != 1)) return;
    for (auto& tile : out_)
      for (std::int32_t i = 0; i < 4; ++i) tile[i] *= factor[i / 2];
  }

  template <thread_block Block>
  STRATA_DEVICE void add_values(Block const& block, std::byte const* stage,
                                float const (&weights)[2][4]) {
    using weight = typename tiles::weight;
    std::uint32_t a[4], b[4][2];
    if constexpr (v_reader::span == 0) as_left_operand<weight>(block, weights, a);
    for (std::int32_t part = 0; part < parts; ++part) {
      if constexpr (v_reader::span > 0) {
        static_assert(v_reader::span == value_columns);
        float scaled[2][4];
        for (std::int32_t n = 0; n < 2; ++n)
          for (std::int32_t i = 0; i < 4; ++i) {
            auto const key = n * fragment_columns + fragment_column(lane_of(block), i);
            scaled[n][i] =
                weights[n][i] * scale<v_reader>(stage + tiles::v_scale_offset, key, part);
          }
        as_left_operand<weight>(block, scaled, a);
      }
      v_reader::values(block, stage + tiles::v_offset, part, b);
      for (std::int32_t j = 0; j < 4; ++j)
        block.template multiply_add<weight>(out_[part * 4 + j], a, b[j]);
    }
  }

  forward_args<T, View> const& args_;
  key_range keys_;
  fragment_sight sight_;
  std::uint32_t query_[steps][4];
  float out_[parts * 4][4] = {};
  float max_[2] = {minus_infinity, minus_infinity}, sum_[2] = {};  // a lane's part of the sum
};

/// The tiles of one warp in a piece: every fourth of 16 keys.
template <class T, class View, std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline void walk_tiles(Block const& block, piece const& p, std::byte* stages,
                                     tile_copier<T, View, Dim>& copier,
                                     mma_rows<T, View, Dim>& rows) {
  using tiles = decode_tiles<T, View, Dim>;
  constexpr std::int32_t step = decode_warps * decode_tile_keys;
  // The first tile that holds a key of the piece. Tiles begin at multiples of 16.
  auto const begin = p.keys.begin / decode_tile_keys * decode_tile_keys;
  auto const own = begin + warp_of(block) * decode_tile_keys;
  auto const count = p.keys.end > own ? ceil_divide(p.keys.end - own, step) : 0;
  auto const stage = [&](std::int32_t i) {
    return stages + i % decode_stages * tiles::stage_bytes;
  };
  auto const send = [&](std::int32_t i) {
    if (i < count) copier.copy(block, stage(i));
    if (i + 1 < count) copier.find(own + (i + 1) * step);
    block.commit_copies();
  };
  if (count > 0) copier.find(own);
  for (std::int32_t i = 0; i < decode_stages - 1; ++i) send(i);
  for (std::int32_t i = 0; i < count; ++i) {
    block.template wait_copies<decode_stages - 2>();
    block.sync_warp();  // all lanes' copies are seen, and the tile before is no longer read
    send(i + decode_stages - 1);
    rows.take(block, stage(i), own + i * step);
  }
  block.template wait_copies<0>();
}

/// Merges the warps' results into the states of a piece's rows: [warps, 16, Dim + 2], 8 threads to a
/// row. Returns whether a thread met a value that is not finite.
template <std::int32_t Dim, thread_block Block>
STRATA_DEVICE inline bool merge_results(Block const& block, float const* results, piece const& p,
                                        state_memory const& states) {
  constexpr std::int32_t width = Dim + 2, threads_of_row = decode_threads / fragment_rows;
  auto const row = block.thread() / threads_of_row;
  if (row >= p.pairs) return false;
  auto const* const own = results + row * width;
  float joint = minus_infinity, sum = 0, weight[decode_warps];
  for (std::int32_t w = 0; w < decode_warps; ++w)
    joint = larger(joint, own[w * fragment_rows * width + Dim]);
  for (std::int32_t w = 0; w < decode_warps; ++w) {
    auto const* const other = own + w * fragment_rows * width;
    weight[w] = decay(block, other[Dim], joint);
    sum += weight[w] * other[Dim + 1];
  }
  float* const to = states.row(p.state, row);
  bool finite = sum - sum == 0;
  for (auto j = block.thread() % threads_of_row; j < Dim; j += threads_of_row) {
    float x = 0;
    for (std::int32_t w = 0; w < decode_warps; ++w)
      x += weight[w] * own[w * fragment_rows * width + j];
    finite = finite && x - x == 0;
    to[j] = x;
  }
  if (block.thread() % threads_of_row == 0) states.store_softmax(to, joint, sum);
  return !finite;
}

/// Whether it holds in a warp of the block. Every thread of a warp says the same.
template <thread_block Block>
STRATA_DEVICE inline bool any_warp(Block const& block, bool condition, std::byte* shared) {
  block.sync();  // the results have been read
  auto* const said = reinterpret_cast<std::int32_t*>(shared);
  if (lane_of(block) == 0) said[warp_of(block)] = condition;
  block.sync();
  std::int32_t any = 0;
  for (std::int32_t w = 0; w < decode_warps; ++w) any |= said[w];
  block.sync();
  return any != 0;
}

/// The first launch of a forward call by matrix products.
template <std::int32_t Dim, class T, class View, thread_block Block>
STRATA_DEVICE inline void decode_mma_body(Block const& block, forward_args<T, View> const& args) {
  using line = schedule<Block, T, View>;
  using tiles = decode_tiles<T, View, Dim>;
  using fma = fma_pair<ceil_divide(Dim, chunk_elements * warp_size), T, View>;
  auto* const shared = block.memory() + schedule_bytes(decode_threads);
  auto* const results = reinterpret_cast<float*>(shared);
  line(block, args.q, args.view, args.split, decode_threads, block.memory())
      .for_each_piece([&](piece const& p) {
        {
          tile_copier<T, View, Dim> copier(block, args.view, p);
          mma_rows<T, View, Dim> rows(block, args, p);
          walk_tiles(block, p, shared + warp_of(block) * tiles::warp_bytes, copier, rows);
          block.sync();  // results lie where tiles did
          rows.store(block, results + warp_of(block) * fragment_rows * (Dim + 2));
        }
        block.sync();
        bool const odd = block.any(merge_results<Dim>(block, results, p, args.states));
        if (any_warp(block, odd, shared))
          for (std::int32_t pair = 0; pair < p.pairs; ++pair)
            fma::run(block, args, p, pair, results);
      });
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
