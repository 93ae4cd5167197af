// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Tokens that are compacted in blocks of every kind, and those of greatest score, against loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include <strata/bulk/compact_tokens.hpp>
#include <strata/bulk/top_k.hpp>
#include <strata/cache/view.hpp>

#include "row_checks.hpp"

namespace bulk_test {

/// Blocks of random order, some of whose rows no sequence has.
struct token_case {
  std::int32_t num_seqs, kv_heads, tokens, block_size;
  std::int64_t row_bytes, scale_bytes;
  bool paged, heads_first, row_per_head, shared_lists;
};

inline token_case random_token_case(number_stream& numbers) {
  constexpr std::int64_t widths[] = {4, 16, 34, 64};
  token_case c;
  c.num_seqs = numbers.below(4);
  c.kv_heads = 1 + numbers.below(3);
  c.tokens = 1 + numbers.below(40);
  c.paged = numbers.below(2) == 0;
  c.block_size = c.paged ? 1 + numbers.below(8) : c.tokens;
  c.row_bytes = widths[numbers.below(4)];
  c.scale_bytes = numbers.below(2) * 4;
  c.heads_first = numbers.below(2) == 0;
  c.row_per_head = numbers.below(3) == 0;
  c.shared_lists = numbers.below(2) == 0;
  return c;
}

/// A tensor of such blocks: bytes of data and of scales, and the tables.
struct token_tensor {
  token_case shape;
  std::int64_t num_rows;
  std::vector<std::byte> data, scales;
  std::vector<std::int32_t> table, row_of;

  token_tensor(token_case const& c, number_stream& numbers) : shape(c) {
    auto const wanted = c.num_seqs * (c.row_per_head ? c.kv_heads : 1);
    num_rows = wanted + 2;
    auto const blocks = num_rows * blocks_per_row();
    auto const tokens = blocks * c.block_size * c.kv_heads;
    data = random_bytes(tokens * c.row_bytes, numbers);
    scales = random_bytes(tokens * c.scale_bytes, numbers);
    table.resize(as_size(blocks));
    std::iota(table.begin(), table.end(), 0);
    shuffle(table, numbers);
    if (c.paged && numbers.below(2) == 0) table[0] = -1;  // a block that is not there
    row_of.resize(as_size(num_rows));
    std::iota(row_of.begin(), row_of.end(), 0);
    shuffle(row_of, numbers);
    if (numbers.below(2) == 0) row_of[0] = -1;  // a sequence that the layer does not store
  }
  std::int64_t blocks_per_row() const {
    return (shape.tokens + shape.block_size - 1) / shape.block_size;
  }
  static void shuffle(std::vector<std::int32_t>& list, number_stream& numbers) {
    for (auto n = static_cast<std::int32_t>(list.size()); n > 1; --n)
      std::swap(list[as_size(n - 1)], list[as_size(numbers.below(n))]);
  }
  strata::block_strides strides(std::int64_t bytes) const {
    auto const block = bytes * shape.kv_heads * shape.block_size;
    if (shape.heads_first) return {block, bytes, bytes * shape.block_size};
    return {block, bytes * shape.kv_heads, bytes};
  }
  strata::writable_blocks blocks(std::byte* at, std::byte* scales_at, std::int32_t const* table_at,
                                 std::int32_t const* row_of_at) const {
    strata::writable_blocks b;
    b.data = at;
    b.stride = strides(shape.row_bytes);
    b.scales = shape.scale_bytes > 0 ? scales_at : nullptr;
    b.scale_stride = strides(shape.scale_bytes);
    b.block_table = shape.paged ? table_at : nullptr;
    b.blocks_per_row = blocks_per_row();
    b.block_size = shape.block_size;
    b.row_of = row_of_at;
    b.row_per_head = shape.row_per_head;
    return b;
  }
  strata::writable_blocks blocks() {
    return blocks(data.data(), scales.data(), table.data(), row_of.data());
  }
};

/// Ascending lists of tokens, some shorter than others: [lists, count].
inline std::vector<std::int32_t> random_lists(std::int64_t lists, std::int32_t count,
                                              std::int32_t tokens, number_stream& numbers) {
  std::vector<std::int32_t> kept;
  for (std::int64_t list = 0; list < lists; ++list) {
    std::vector<std::int32_t> all(as_size(tokens));
    std::iota(all.begin(), all.end(), 0);
    token_tensor::shuffle(all, numbers);
    all.resize(as_size(std::min(tokens, numbers.below(count + 1))));
    std::sort(all.begin(), all.end());
    all.resize(as_size(count), -1);
    kept.insert(kept.end(), all.begin(), all.end());
  }
  return kept;
}

/// Token j becomes the one that its list names, by the blocks' own addresses.
inline void compact_by_loop(strata::tensor_blocks const& from, strata::writable_blocks const& to,
                            bulk::kept_tokens const& kept, token_case const& c) {
  auto const here = [](auto const& blocks, std::int64_t row, std::int32_t token) {
    return row >= 0 && blocks.block(row, token) >= 0;
  };
  for (std::int32_t s = 0; s < c.num_seqs; ++s)
    for (std::int32_t h = 0; h < c.kv_heads; ++h)
      for (std::int32_t j = 0; j < kept.count; ++j) {
        auto const token = kept.at(s, h, j);
        auto const read = from.row(s, h, c.kv_heads), written = to.row(s, h, c.kv_heads);
        if (token < 0 || !here(from, read, token) || !here(to, written, j)) continue;
        std::copy_n(from.at(read, h, token), c.row_bytes, to.at(written, h, j));
        if (c.scale_bytes > 0)
          std::copy_n(from.scales_at(read, h, token), c.scale_bytes, to.scales_at(written, h, j));
      }
}

/// In place, or into blocks of another order and layout.
template <class System>
std::string check_compact_tokens(System const& system, bool in_place, std::uint64_t seed) {
  number_stream numbers(seed);
  auto const c = random_token_case(numbers);
  token_tensor from(c, numbers);
  auto other = random_token_case(numbers);
  auto c_to = c;
  c_to.paged = other.paged;
  c_to.block_size = other.paged ? other.block_size : c.tokens;
  c_to.heads_first = other.heads_first;
  token_tensor to(in_place ? c : c_to, numbers);
  if (in_place) to = from;

  auto const count = 1 + numbers.below(c.tokens);
  auto const lists = c.shared_lists ? c.num_seqs : c.num_seqs * c.kv_heads;
  auto const kept = random_lists(lists, count, c.tokens, numbers);
  auto const lists_at = [&](std::int32_t const* at) {
    return bulk::kept_tokens{at, count, (c.shared_lists ? 1 : c.kv_heads) * count,
                             c.shared_lists ? 0 : count};
  };
  auto data = system.upload(from.data), scales = system.upload(from.scales);
  auto to_data = system.upload(to.data), to_scales = system.upload(to.scales);
  auto const table = system.upload(from.table), row_of = system.upload(from.row_of);
  auto const to_table = system.upload(to.table), to_row_of = system.upload(to.row_of);
  auto const device_kept = system.upload(kept);

  auto before = from;  // what a loop reads: in place, it must not read what it wrote
  compact_by_loop(before.blocks(), to.blocks(), lists_at(kept.data()), c);
  bulk::token_shape const shape{c.num_seqs, c.kv_heads, c.row_bytes, c.scale_bytes};
  auto const read = from.blocks(data.data(), scales.data(), table.data(), row_of.data());
  auto const written =
      to.blocks(to_data.data(), to_scales.data(), to_table.data(), to_row_of.data());
  auto const list = lists_at(device_kept.data());
  auto const s = in_place ? bulk::compact_tokens(system.policy, read, list, shape)
                          : bulk::compact_tokens(system.policy, read, list, written, shape);
  if (!s.ok()) return describe(s).c_str();
  bool const same = (in_place ? data : to_data).get() == to.data &&
                    (in_place ? scales : to_scales).get() == to.scales;
  return same ? "" : "compacted tokens differ";
}

/// Positions of two sequences, kept in step with their tokens.
template <class System>
std::string check_positions(System const& system) {
  auto positions = system.upload(std::vector<std::int32_t>{0, 1, 2, 9, 5, 6, 7, 8});
  auto const kept = system.upload(std::vector<std::int32_t>{1, 3, 0, -1});
  auto const s = bulk::compact_tokens(system.policy, bulk::position_blocks(positions.data(), 4, 4),
                                      {kept.data(), 2, 2}, {.num_seqs = 2, .row_bytes = 4});
  std::vector<std::int32_t> const expected{1, 9, 2, 9, 5, 6, 7, 8};
  return s.ok() && positions.get() == expected ? "" : "other positions";
}

/// Few different scores, so that many tie; what no number orders; and what does not exist.
inline float random_score(number_stream& numbers) {
  constexpr auto inf = std::numeric_limits<float>::infinity();
  constexpr auto nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float values[] = {0,   -0.f, 1,    -1,     0.5f,    -0.5f, inf,
                              nan, -nan, -inf, 1e-40f, -1e-40f, 3e38f, -3e38f};
  if (numbers.below(4) == 0) return static_cast<float>(numbers.signed_unit());
  return values[numbers.below(14)];
}

/// The k tokens of one segment that no other beats: by definition, one after the other.
inline std::vector<std::int32_t> best_tokens(float const* scores, std::int32_t length,
                                             std::int32_t k) {
  std::vector<std::int32_t> tokens;
  for (std::int32_t t = 0; t < length; ++t)
    if (!std::isnan(scores[t])) tokens.push_back(t);
  std::stable_sort(tokens.begin(), tokens.end(),
                   [&](std::int32_t a, std::int32_t b) { return scores[a] > scores[b]; });
  tokens.resize(std::min(tokens.size(), as_size(k)));
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

template <class System>
std::string check_top_k(System const& system, bulk::token_scores shape, std::int32_t k,
                        bool with_lengths, std::uint64_t seed) {
  number_stream numbers(seed);
  std::vector<float> scores(as_size(shape.num_segments * shape.stride));
  for (auto& x : scores) x = random_score(numbers);
  std::vector<std::int32_t> lengths(as_size(shape.num_segments), shape.length);
  for (auto& length : lengths)
    if (with_lengths) length = numbers.below(shape.length + 1);
  std::vector<std::int32_t> tokens, counts;
  for (std::size_t s = 0; s < lengths.size(); ++s) {
    auto best = best_tokens(scores.data() + as_size(shape.stride) * s, lengths[s], k);
    counts.push_back(static_cast<std::int32_t>(best.size()));
    best.resize(as_size(k), -1);
    tokens.insert(tokens.end(), best.begin(), best.end());
  }
  auto const device_scores = system.upload(scores);
  auto const device_lengths = system.upload(lengths);
  auto device_tokens = system.upload(std::vector<std::int32_t>(tokens.size(), -9));
  auto device_counts = system.upload(std::vector<std::int32_t>(counts.size(), -9));
  shape.data = device_scores.data();
  shape.lengths = with_lengths ? device_lengths.data() : nullptr;
  auto const s = bulk::top_k(system.policy, shape, k, {device_tokens.data(), tokens.size()},
                             {device_counts.data(), counts.size()});
  if (!s.ok()) return describe(s).c_str();
  if (device_tokens.get() != tokens) return "other tokens";
  return device_counts.get() == counts ? "" : "other counts";
}

template <class System>
std::string check_top_k(System const& system, std::uint64_t seed) {
  number_stream numbers(seed + 77);
  constexpr std::int32_t sizes[] = {0, 1, 2, 5, 40, 700};
  bulk::token_scores shape;
  shape.num_segments = sizes[numbers.below(5)];
  shape.length = sizes[numbers.below(6)];
  shape.stride = shape.length + numbers.below(3);
  auto const k =
      numbers.below(3) == 0 ? shape.length + numbers.below(3) : numbers.below(shape.length + 1);
  return check_top_k(system, shape, k, numbers.below(2) == 0, seed);
}

}  // namespace bulk_test
