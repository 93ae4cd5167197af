// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Sums over rows: gradients of norm gains and of the embedding. No atomics: a block owns a tile of
// columns, its warps take rows in turn, and what they have is added in their order.
#pragma once

#include <cstdint>

#include "cuda/block_ops.hpp"

namespace lm::cuda {
namespace detail {

/// Columns of a tile.
template <int N>
inline constexpr std::int64_t tile_columns = std::int64_t{warp_size} * N;
inline constexpr std::int64_t tile_bytes = block_warps * tile_columns<wide> * 4;

STRATA_HOST_DEVICE constexpr std::int64_t num_tiles(std::int64_t columns, bool wides) {
  return strata::detail::ceil_divide(columns, wides ? tile_columns<wide> : tile_columns<1>);
}

/// Sums over i = begin .. end - 1 for the tile's columns: add(i, column, sums) adds to N of them,
/// take(column, sum) gets each. Takes tile_bytes of shared memory.
template <int N, thread_block Block, class Add, class Take>
STRATA_DEVICE inline void sum_tile(Block const& block, std::int64_t begin, std::int64_t end,
                                   std::int64_t tile, std::int64_t columns, Add const& add,
                                   Take const& take) {
  constexpr auto size = tile_columns<N>;
  auto const first = tile * size;
  auto const own = first + std::int64_t{lane_of(block)} * N;
  float sum[N] = {};
  if (own < columns)
    for (auto i = begin + warp_of(block); i < end; i += block_warps) add(i, own, sum);
  auto* const of_warp = reinterpret_cast<float*>(block.memory());
  for (int i = 0; i < N; ++i) of_warp[warp_of(block) * size + lane_of(block) * N + i] = sum[i];
  block.sync();
  for (std::int64_t c = block.thread(); c < size && first + c < columns; c += block_threads) {
    float all = of_warp[c];
    for (std::int32_t w = 1; w < block_warps; ++w) all += of_warp[w * size + c];
    take(first + c, all);
  }
}

}  // namespace detail

/// dy x / rms(x), whose sum over rows is the gradient of a norm's gain.
template <number D>
struct norm_gain_term {
  D const* dy = nullptr;               ///< [rows, dim]
  bfloat16 const* x = nullptr;         ///< [rows, dim]
  float const* inverse_rms = nullptr;  ///< [rows]
  std::int64_t dim = 0;

  bool wides() const { return in_wides(dim); }
  template <int N>
  STRATA_DEVICE void add(std::int64_t row, std::int64_t column, float (&sum)[N]) const {
    float d[N], in[N];
    load(dy + row * dim + column, d);
    load(x + row * dim + column, in);
    for (int i = 0; i < N; ++i) sum[i] += d[i] * in[i] * inverse_rms[row];
  }
};

/// How many parts the rows of a sum are split into: many enough to occupy a device, few enough to be
/// added in no time, and the same whatever the device.
inline constexpr std::int64_t most_parts = 128;
inline std::int64_t sum_parts(std::int64_t rows) {
  return strata::detail::smaller(strata::detail::ceil_divide(rows, std::int64_t{64}), most_parts);
}

/// parts[p, column]: the sum of the term over the rows of part p.
template <class Term>
struct column_sums {
  Term term;
  float* parts = nullptr;  ///< [sum_parts(rows), columns]
  std::int64_t rows = 0, columns = 0;
  bool wides = false;
  std::int64_t num_parts = 0;

  static column_sums of(Term const& term, float* parts, std::int64_t rows, std::int64_t columns) {
    return {term, parts, rows, columns, term.wides(), sum_parts(rows)};
  }
  grid size() const {
    return {detail::num_tiles(columns, wides) * num_parts, block_threads, detail::tile_bytes};
  }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    wides ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    auto const part = block.index() % num_parts, tile = block.index() / num_parts;
    auto const begin = rows * part / num_parts, end = rows * (part + 1) / num_parts;
    detail::sum_tile<N>(
        block, begin, end, tile, columns,
        [&](std::int64_t row, std::int64_t column, float(&sum)[N]) { term.add(row, column, sum); },
        [&](std::int64_t column, float sum) { parts[part * columns + column] = sum; });
  }
};

/// gradient[column] += the parts, in ascending order.
struct add_parts {
  float const* parts = nullptr;  ///< [num_parts, columns]
  float* gradient = nullptr;     ///< [columns]
  std::int64_t num_parts = 0, columns = 0;

  grid size() const {
    return {strata::detail::ceil_divide(columns, std::int64_t{block_threads}), block_threads, 0};
  }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    auto const column = std::int64_t{block.index()} * block_threads + block.thread();
    if (column >= columns) return;
    float sum = 0;
    for (std::int64_t p = 0; p < num_parts; ++p) sum += parts[p * columns + column];
    gradient[column] += sum;
  }
};

/// d_embedding[tokens[g]] += the sum of dx[order[i]] over i = begins[g] .. begins[g + 1] - 1:
/// token_groups.hpp makes the lists. A block for each group and tile.
struct embedding_gradient {
  bfloat16 const* dx = nullptr;          ///< [rows, dim]
  std::int32_t const* order = nullptr;   ///< [rows], rows by token
  std::int32_t const* begins = nullptr;  ///< [num_groups + 1]
  std::int32_t const* tokens = nullptr;  ///< [num_groups], of groups that are not empty
  float* d_embedding = nullptr;          ///< [vocab, dim]
  std::int64_t num_groups = 0, dim = 0;

  grid size() const {
    return {detail::num_tiles(dim, in_wides(dim)) * num_groups, block_threads, detail::tile_bytes};
  }

  template <thread_block Block>
  STRATA_DEVICE void operator()(Block const& block) const {
    in_wides(dim) ? run<wide>(block) : run<1>(block);
  }

 private:
  template <int N, thread_block Block>
  STRATA_DEVICE void run(Block const& block) const {
    auto const group = block.index() % num_groups, tile = block.index() / num_groups;
    auto const begin = begins[group], end = begins[group + 1];
    if (begin == end) return;
    auto* const to = d_embedding + std::int64_t{tokens[group]} * dim;
    detail::sum_tile<N>(
        block, begin, end, tile, dim,
        [&](std::int64_t i, std::int64_t column, float(&sum)[N]) {
          float d[N];
          load(dx + std::int64_t{order[i]} * dim + column, d);
          for (int j = 0; j < N; ++j) sum[j] += d[j];
        },
        [&](std::int64_t column, float sum) { to[column] += sum; });
  }
};

}  // namespace lm::cuda
