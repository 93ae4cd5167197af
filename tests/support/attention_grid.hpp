// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Attention calls of every shape and with every feature, so that any two of them meet.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <vector>

#include "attention_cases.hpp"
#include "pairwise.hpp"

namespace support {

namespace grid {

// The levels of every factor: what models have, and both sides of the edges of tiles and splits.
inline constexpr std::int32_t dims[][2] = {{64, 64},  {80, 80}, {96, 96}, {128, 128}, {256, 256},
                                           {1, 1},    {7, 7},   {72, 72}, {100, 100}, {128, 64},
                                           {64, 256}, {96, 7},  {72, 80}};
inline constexpr std::int32_t groups[] = {1, 3, 4, 8, 16};
inline constexpr std::int32_t kv_heads[] = {1, 2, 3};
inline constexpr std::int32_t rows[] = {1, 2, 3, 4, 5, 16, 17, 50};
inline constexpr std::int32_t lengths[] = {0, 1, 15, 16, 17, 63, 64, 65, 511, 512, 513, 1030};
inline constexpr std::int32_t blocks[] = {0, 1, 3, 16, 17, 64};  // 0: the whole row
inline constexpr std::int32_t windows[] = {strata::unbounded_window, 1, 9, 64, 100, 513};
inline constexpr double softcaps[] = {0, 0.8, 30};
inline constexpr std::int64_t key_ranges[][2] = {{0, strata::all_keys},  {0, 0},  {0, 17},
                                                 {64, strata::all_keys}, {5, 70}, {16, 512},
                                                 {500, strata::all_keys}};
inline constexpr double scales[][2] = {{2, 0}, {60, 0}, {2, 0.07}};  // of queries; of scores, or 0

enum class position {
  plain,
  gaps,
  implied,
  implied_gaps,
  ahead,
  any_order,
  per_head,
  per_head_gaps,
  count
};
enum class batch { alone, uniform, first, last, count };
enum factor : std::size_t {
  dim,
  group,
  kv_head,
  row,
  length,
  k_block,
  v_block,
  heads_first,
  row_per_head,
  window,
  softcap,
  sinks,
  causal,
  positions,
  key_range,
  scale,
  company,
  add,
  factors
};

template <class T, std::size_t N>
constexpr std::int32_t count(T const (&)[N]) {
  return static_cast<std::int32_t>(N);
}

inline choice levels() {
  return {count(dims),
          count(groups),
          count(kv_heads),
          count(rows),
          count(lengths),
          count(blocks),
          count(blocks),
          2,
          2,
          count(windows),
          count(softcaps),
          2,
          2,
          static_cast<std::int32_t>(position::count),
          count(key_ranges),
          count(scales),
          static_cast<std::int32_t>(batch::count),
          4};
}

/// Multiplications of one forward pass over the sequence that the levels describe.
inline std::int64_t work(choice const& c) {
  auto const& [k_dim, v_dim] = dims[c[dim]];
  auto const heads = groups[c[group]] * kv_heads[c[kv_head]];
  return std::int64_t{rows[c[row]]} * heads * lengths[c[length]] * (k_dim + v_dim);
}

/// Neighbours: a decode beside a prefill, and nobody.
inline void add_company(attention_case& x, batch kind) {
  auto const length = x.lengths.front(), row_count = x.rows.front();
  if (kind == batch::uniform) x.lengths = {length, 70}, x.rows = {row_count, row_count};
  if (kind == batch::first) x.lengths = {length, 0, 66, 5}, x.rows = {row_count, 1, 0, 5};
  if (kind == batch::last) x.lengths = {33, 3, length}, x.rows = {1, 4, row_count};
  x.no_offsets = kind == batch::alone || kind == batch::uniform;
}

inline void set_positions(attention_case& x, position kind) {
  using enum position;
  x.gaps = kind == gaps || kind == implied_gaps || kind == per_head_gaps;
  x.no_positions = kind == implied || kind == implied_gaps;
  x.lengths_per_head = kind == per_head || kind == per_head_gaps;
  x.any_order = kind == any_order || kind == per_head_gaps;
  if (kind == ahead) x.ahead = 7;
}

/// All parameters of a case, as C++ would have them.
inline std::string spell(attention_case const& x) {
  std::string text;
  auto const add = [&](char const* name, auto const... value) {
    text += std::string(text.empty() ? "" : ", ") + name;
    ((text += " " + std::to_string(value)), ...);
  };
  for (std::size_t s = 0; s < x.lengths.size(); ++s) add("rows of length", x.rows[s], x.lengths[s]);
  add("heads", x.q_heads, x.kv_heads);
  add("dims", x.k_dim, x.v_dim);
  add("blocks", x.layout.k_block, x.layout.v_block);
  add("heads_first", x.layout.heads_first);
  add("row_per_head", x.layout.row_per_head);
  add("window", x.rule.window);
  add("softcap", x.rule.softcap);
  add("scale", x.rule.scale);
  add("causal", x.rule.causal);
  add("sinks", x.sinks);
  add("gaps", x.gaps);
  add("lengths_per_head", x.lengths_per_head);
  add("no_positions", x.no_positions);
  add("no_offsets", x.no_offsets);
  add("any_order", x.any_order);
  add("ahead", x.ahead);
  add("keys", x.key_begin, x.key_end);
  add("query_scale", x.query_scale);
  add("add_k", x.add_k);
  add("add_v", x.add_v);
  return text;
}

inline attention_case case_of(choice const& c) {
  attention_case x;
  x.lengths = {lengths[c[length]]};
  x.rows = {rows[c[row]]};
  x.kv_heads = kv_heads[c[kv_head]];
  x.q_heads = x.kv_heads * groups[c[group]];
  x.k_dim = dims[c[dim]][0];
  x.v_dim = dims[c[dim]][1];
  x.layout = {blocks[c[k_block]], blocks[c[v_block]], c[heads_first] == 1, c[row_per_head] == 1};
  x.rule.window = windows[c[window]];
  x.rule.softcap = softcaps[c[softcap]];
  x.rule.scale = scales[c[scale]][1];
  x.rule.causal = c[causal] == 1;
  x.sinks = c[sinks] == 1;
  x.key_begin = key_ranges[c[key_range]][0];
  x.key_end = key_ranges[c[key_range]][1];
  x.query_scale = scales[c[scale]][0];
  set_positions(x, static_cast<position>(c[positions]));
  add_company(x, static_cast<batch>(c[company]));
  x.add_k = c[add] % 2 == 1;
  x.add_v = c[add] / 2 == 1;
  x.name = spell(x);
  return x;
}

}  // namespace grid

/// A design in which all pairs of levels meet that can meet within `most_work` multiplications.
inline std::vector<choice> attention_design(std::uint64_t seed, std::int64_t most_work) {
  return cover_pairs(grid::levels(), seed,
                     [&](choice const& c) { return grid::work(c) <= most_work; });
}

}  // namespace support
