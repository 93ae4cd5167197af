// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// A forward call: how it is cut into pieces for its shares, and who works on which.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include <strata/attention/cpu/blocked_forward.hpp>
#include <strata/attention/cpu/lanes.hpp>
#include <strata/attention/cpu/sight.hpp>
#include <strata/attention/cpu/state.hpp>
#include <strata/attention/cpu/stream.hpp>
#include <strata/attention/cpu/tile.hpp>
#include <strata/attention/kernel.hpp>
#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/detail/key_range.hpp>
#include <strata/executor.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

/// Sequences of few rows are streamed, where `Streamed` says so; the others are taken apart into row
/// tiles. Each is one piece, but one that is heavier than a quarter of a share's fair part is as
/// many as it has splits, whose states lie in the workspace until they are combined. There are
/// fewer than 4 x num_shares of those, which bounds that memory.
template <class T, class View, bool Streamed>
class forward_call {
  using A = accum_t<T>;
  static constexpr bool may_stream = Streamed && std::same_as<A, float>;

 public:
  forward_call(query_rows<T> const& q, View const& view, std::int32_t num_shares) noexcept
      : q_(q), view_(view), group_(q.q_heads / larger(view.kv_heads, 1)), shares_(num_shares) {
    std::int64_t pairs = 0, tiles = 0;
    for (std::int32_t seq = 0; seq < q.num_seqs; ++seq) {
      pairs = larger(pairs, pairs_of(seq));
      sequences_ += pairs_of(seq) > 0;
      if (!streams(seq))
        tiles += ceil_divide<std::int64_t>(pairs_of(seq), least_rows) * view.kv_heads;
      for (std::int32_t head = 0; head < view.kv_heads; ++head) {
        auto const keys = strata::detail::keys_of(q, view, seq, head);
        longest_ = larger<std::int64_t>(longest_, keys.end - keys.begin);
      }
    }
    splits_ = ceil_divide<std::int64_t>(longest_, split_keys);
    if (tiles > 0) {
      most_rows_ = static_cast<std::int32_t>(smaller<std::int64_t>(tile_rows, pairs));
      share_size_ = lines(forward_pass<T, View>::size(view, most_rows_));
      auto const rows = smaller(most_rows_, least_rows);
      tile_size_ = lines(tile_state<A>::size(rows, stride_of<A>(view.v_dim)));
    }
    if constexpr (may_stream) {
      // Whether sequences are streamed or not: else a larger call could need less memory.
      pairs_ = static_cast<std::int32_t>(smaller<std::int64_t>(streamed_pairs, pairs));
      share_size_ = larger(share_size_, lines(stream_pass<T, View>::size(view, pairs_)));
      head_size_ = stream_pass<T, View>::state_size(view, pairs_);
    }
    states_size_ = splits_ * (smaller(tiles, pieces()) * tile_size_ +
                              smaller(sequences_, pieces()) * view.kv_heads * head_size_);
  }

  /// Elements of the workspace: the shares' scratch, and states.
  std::int64_t size() const noexcept {
    return share_size_ * shares_ + (shares_ > 1 ? states_size_ : 0);
  }

  /// The part of share `ith`, before and after the barrier.
  void partial(std::int32_t ith, A* memory) const noexcept {
    auto const part = share_of(ith);
    if constexpr (may_stream)
      if (part.streamed > 0) stream(part, memory);
    if (part.rows > 0) tile(part, memory);
  }
  void combine(std::int32_t ith, A* memory) const noexcept {
    if (shares_ == 1) return;
    auto const part = share_of(ith);
    if constexpr (may_stream) combine_streams(part, memory);
    if (part.rows > 0) combine_tiles(part, memory);
  }

 private:
  /// Who works on what, by the work that lies before it.
  struct call_share {
    std::int32_t ith, shares;
    std::int32_t rows;             // of a tile at most; 0: there are none
    std::int64_t streamed, total;  // work of the call

    bool owns(std::int64_t before) const noexcept { return before * shares / total == ith; }
    bool cuts(std::int64_t cost) const noexcept { return shares > 1 && cost * 4 * shares > total; }
  };

  /// The keys that a streamed sequence reads.
  struct workload {
    std::int64_t cost = 0;
    std::int32_t first_split = 0, last_split = 0;
  };

  static constexpr std::int64_t lines(std::int64_t elements) noexcept {
    return ceil_divide<std::int64_t>(elements, 16) * 16;
  }
  std::int64_t pieces() const noexcept { return std::int64_t{4} * shares_; }
  std::int64_t pairs_of(std::int32_t seq) const noexcept {
    return std::int64_t{q_.row_end(seq) - q_.row_begin(seq)} * group_;
  }
  bool streams(std::int32_t seq) const noexcept {
    return may_stream && pairs_of(seq) <= streamed_pairs;
  }

  workload workload_of(std::int32_t seq) const noexcept {
    workload all;
    bool const alike = !view_.rows.length_per_head && view_.rows.position_head_stride == 0;
    auto const heads = alike ? 1 : view_.kv_heads;
    for (std::int32_t head = 0; head < heads; ++head)
      for_each_tile(q_, view_, seq, head, streamed_pairs, [&](row_tile const& tile) {
        // Up to 6 pairs, reading the keys takes longer than computing.
        all.cost += (std::int64_t{tile.last_key} - tile.first_key + 1) * larger(tile.count, 6);
        bool const first = head == 0;
        all.first_split = first ? tile.first_split() : smaller(all.first_split, tile.first_split());
        all.last_split = first ? tile.last_split() : larger(all.last_split, tile.last_split());
      });
    if (alike) all.cost *= view_.kv_heads;
    return all;
  }
  /// Calls body(seq, keys) for the sequences that are streamed.
  template <class Body>
  void for_each_streamed(Body&& body) const noexcept {
    for (std::int32_t seq = 0; seq < q_.num_seqs; ++seq)
      if (streams(seq) && pairs_of(seq) > 0) body(seq, workload_of(seq));
  }
  std::int64_t streamed_cost() const noexcept {
    std::int64_t cost = 0;
    for_each_streamed([&](std::int32_t, workload const& keys) { cost += keys.cost; });
    return cost;
  }
  template <class Body>
  void for_each_tiled(std::int32_t rows, Body&& body) const noexcept {
    for (std::int32_t seq = 0; seq < q_.num_seqs; ++seq)
      for (std::int32_t head = 0; head < view_.kv_heads && !streams(seq); ++head)
        for_each_tile(q_, view_, seq, head, rows, body);
  }
  std::int64_t tiled_cost(std::int32_t rows) const noexcept {
    std::int64_t cost = 0;
    if (rows > 0) for_each_tiled(rows, [&](row_tile const& tile) { cost += tile.cost(); });
    return cost;
  }
  /// As many, above least_rows, as leave no tile heavier than an eighth of a share's fair part: by no
  /// more do shares differ then, and no tile is cut. Those of least_rows at most may be, and have
  /// states.
  std::int32_t rows_of_tiles(std::int64_t streamed) const noexcept {
    if (shares_ == 1 || most_rows_ <= least_rows) return most_rows_;
    auto const eighth = (streamed + tiled_cost(least_rows)) / (std::int64_t{8} * shares_);
    auto const fair = eighth / (longest_ + 1) / least_rows * least_rows;
    return static_cast<std::int32_t>(
        larger<std::int64_t>(smaller<std::int64_t>(most_rows_, fair), least_rows));
  }

  call_share share_of(std::int32_t ith) const noexcept {
    auto const streamed = streamed_cost();
    auto const rows = rows_of_tiles(streamed);
    return {ith, shares_, rows, streamed, streamed + tiled_cost(rows)};
  }

  // Where states lie: of streamed sequences [split][head], then those of tiles.
  std::int64_t sequence_size() const noexcept { return splits_ * view_.kv_heads * head_size_; }
  A* streamed_states(A* memory) const noexcept { return memory + shares_ * share_size_; }
  A* tiled_states(A* memory) const noexcept {
    return streamed_states(memory) + smaller(sequences_, pieces()) * sequence_size();
  }

  /// KV heads to a piece of a sequence that is cut: as many as leave enough pieces.
  std::int32_t heads_per_piece(workload const& keys) const noexcept {
    auto const splits = std::int64_t{keys.last_split} - keys.first_split;
    auto const heads = larger<std::int64_t>(splits * view_.kv_heads / pieces(), 1);
    return static_cast<std::int32_t>(
        smaller<std::int64_t>(heads, stream_pass<T, View>::heads_together(view_)));
  }

  void stream(call_share const& part, A* memory) const noexcept {
    stream_pass<T, View> pass(q_, view_, pairs_, memory + part.ith * share_size_);
    auto* states = streamed_states(memory);
    std::int64_t before = 0;
    for_each_streamed([&](std::int32_t seq, workload const& keys) {
      if (part.cuts(keys.cost)) {
        stream_splits(part, pass, seq, keys, before, states);
        states += sequence_size();
      } else if (part.owns(before)) {
        pass.run(seq);
      }
      before += keys.cost;
    });
  }
  void stream_splits(call_share const& part, stream_pass<T, View>& pass, std::int32_t seq,
                     workload const& keys, std::int64_t before, A* states) const noexcept {
    auto const heads = heads_per_piece(keys);
    auto const groups = ceil_divide(view_.kv_heads, heads);
    auto const count = std::int64_t{keys.last_split - keys.first_split} * groups;
    for (std::int64_t i = 0; i < count; ++i) {
      if (!part.owns(before + keys.cost * i / count)) continue;
      auto const split = static_cast<std::int32_t>(i / groups);
      auto const head = static_cast<std::int32_t>(i % groups) * heads;
      pass.run_split(seq, head, smaller(head + heads, view_.kv_heads), keys.first_split + split,
                     states + (std::int64_t{split} * view_.kv_heads + head) * head_size_);
    }
  }
  void combine_streams(call_share const& part, A* memory) const noexcept {
    stream_pass<T, View> pass(q_, view_, pairs_, memory + part.ith * share_size_);
    auto* states = streamed_states(memory);
    std::int32_t index = 0;
    for_each_streamed([&](std::int32_t seq, workload const& keys) {
      if (!part.cuts(keys.cost)) return;
      for (std::int32_t head = 0; head < view_.kv_heads; ++head)
        if (index++ % part.shares == part.ith)
          pass.combine(seq, head, keys.first_split, states + head * head_size_,
                       view_.kv_heads * head_size_);
      states += sequence_size();
    });
  }

  void tile(call_share const& part, A* memory) const noexcept {
    forward_pass<T, View> pass(q_, view_, part.rows, memory + part.ith * share_size_);
    auto before = part.streamed;
    auto* states = tiled_states(memory);
    for_each_tiled(part.rows, [&](row_tile const& tile) {
      if (cuts(part, tile)) {
        auto const first = tile.first_split(), count = tile.last_split() - first;
        for (std::int32_t i = 0; i < count; ++i)
          if (part.owns(before + tile.cost() * i / count))
            pass.run_split(tile, first + i, states + i * tile_size_);
        states += splits_ * tile_size_;
      } else if (part.owns(before)) {
        pass.run(tile);
      }
      before += tile.cost();
    });
  }
  void combine_tiles(call_share const& part, A* memory) const noexcept {
    forward_pass<T, View> pass(q_, view_, part.rows, memory + part.ith * share_size_);
    auto* states = tiled_states(memory);
    std::int32_t index = 0;
    for_each_tiled(part.rows, [&](row_tile const& tile) {
      if (!cuts(part, tile)) return;
      if (index++ % part.shares == part.ith) pass.combine(tile, states, tile_size_);
      states += splits_ * tile_size_;
    });
  }
  static bool cuts(call_share const& part, row_tile const& tile) noexcept {
    return tile.last_split() - tile.first_split() > 1 && part.cuts(tile.cost());
  }

  query_rows<T> const& q_;
  View const& view_;
  std::int32_t group_, shares_;
  std::int32_t most_rows_ = 0;  // of a tile; 0: there are none
  std::int32_t pairs_ = 0;      // the most that a streamed sequence has
  std::int64_t longest_ = 0;    // keys of a sequence
  std::int64_t splits_ = 0, sequences_ = 0;
  // In elements.
  std::int64_t share_size_ = 0, tile_size_ = 0, head_size_ = 0, states_size_ = 0;
};

// What both kernels are made of: `Streamed` is all that they differ in.

template <bool Streamed, class T, class View>
std::int64_t forward_bytes(query_rows<T> const& q, View const& view,
                           std::int32_t num_shares) noexcept {
  auto const shares = larger(num_shares, 1);  // no size is negative, not even of a call refused
  auto const elements = forward_call<T, View, Streamed>(q, view, shares).size();
  return elements * static_cast<std::int64_t>(sizeof(accum_t<T>)) + workspace_slack;
}
template <bool Streamed, class T, class View>
status check_forward(share part, query_rows<T> const& q, View const& view,
                     std::span<std::byte> workspace) noexcept {
  if (auto const s = check(part); !s.ok()) return s;
  if (auto const s = check(q, view); !s.ok()) return s;
  auto const needed = forward_bytes<Streamed>(q, view, part.nth);
  return strata::detail::check_workspace(workspace, needed);
}
template <bool Streamed, class T, class View>
status forward_partial(share part, query_rows<T> const& q, View const& view,
                       std::span<std::byte> workspace) noexcept {
  if (auto const s = check_forward<Streamed>(part, q, view, workspace); !s.ok()) return s;
  auto* const memory = reinterpret_cast<accum_t<T>*>(workspace_start(workspace));
  forward_call<T, View, Streamed>(q, view, part.nth).partial(part.ith, memory);
  return {};
}
template <bool Streamed, class T, class View>
status forward_combine(share part, query_rows<T> const& q, View const& view,
                       std::span<std::byte> workspace) noexcept {
  if (auto const s = check_forward<Streamed>(part, q, view, workspace); !s.ok()) return s;
  auto* const memory = reinterpret_cast<accum_t<T>*>(workspace_start(workspace));
  forward_call<T, View, Streamed>(q, view, part.nth).combine(part.ith, memory);
  return {};
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
