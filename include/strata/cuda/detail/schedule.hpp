// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// How the keys of a batch are spread over the blocks of a launch. The lengths are known on the
// device only, and may change between two replays of a captured graph: so the launch is as wide as
// the device, and its blocks find out for themselves what there is to do.
//
// A row block is up to `block_rows` pairs of a query row and a query head of one KV head of one
// sequence; its keys come in units of `unit_keys`. All units of all row blocks stand in one line,
// and every block of the launch takes an equal part of it: whatever the lengths, none waits for
// another for longer than a unit. (The work-centric grids of Lean Attention, arXiv:2405.10480;
// splits of one size for all sequences lose where lengths differ, and sizes taken from capacities
// lose everywhere.)
//
// What a block finds out about adjacent units of one row block it keeps in one state; where
// `fixed`, it keeps each unit's apart, so that the bits of a sequence depend on nothing but itself.
#pragma once

#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/thread_block.hpp>
#include <strata/detail/key_range.hpp>
#include <strata/detail/math.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

using strata::detail::ceil_divide;
using strata::detail::key_range;
using strata::detail::larger;
using strata::detail::smaller;

struct split_rule {
  std::int32_t block_rows = 16;
  std::int32_t unit_keys = 64;  // 0: row blocks are walked, and keys are in no units
  std::int32_t parts = 1;       ///< blocks of the launch that computes the units
  bool fixed = false;
  // The sequences of this launch have so many pairs per KV head; it leaves the others alone.
  std::int32_t least_pairs = 1, most_pairs = 64;
};

/// Adjacent units of one row block.
struct piece {
  std::int32_t seq = 0, kv_head = 0;
  std::int32_t first_pair = 0, pairs = 0;
  key_range keys;        // of these units: begin .. end
  std::int64_t state{};  // where its state is kept
};

/// A row block, and the states that are to be merged.
struct row_block {
  std::int32_t seq = 0, kv_head = 0;
  std::int32_t first_pair = 0, pairs = 0;
  std::int64_t first_state = 0, num_states = 0;
};

/// Units and row blocks of one (sequence, KV head).
struct head_work {
  std::int32_t pairs = 0;
  std::int32_t row_blocks = 0;
  std::int32_t first_unit = 0, units = 0;  // of each row block
  key_range keys;
};

template <class T, class View>
STRATA_DEVICE inline head_work work_of(query_rows<T> const& q, View const& view,
                                       split_rule const& rule, std::int32_t seq,
                                       std::int32_t kv_head) {
  head_work work;
  auto const first_row = q.row_begin(seq), last_row = q.row_end(seq);
  auto const pairs = (last_row - first_row) * (q.q_heads / view.kv_heads);
  if (pairs < rule.least_pairs || pairs > rule.most_pairs) return work;
  work.pairs = pairs;
  work.row_blocks = ceil_divide(pairs, rule.block_rows);
  if (rule.unit_keys == 0) return work;
  work.keys = strata::detail::keys_of(q, view, seq, kv_head);
  if (q.rule.window != unbounded_window) {
    std::int64_t lowest = q.position(seq, first_row, work.keys.end_position);
    for (auto row = first_row + 1; row < last_row; ++row)
      lowest = smaller<std::int64_t>(lowest, q.position(seq, row, work.keys.end_position));
    work.keys.begin = strata::detail::first_after(work.keys, lowest - q.rule.window);
  }
  if (work.keys.end <= work.keys.begin) return work;
  work.first_unit = work.keys.begin / rule.unit_keys;
  work.units = ceil_divide(work.keys.end, rule.unit_keys) - work.first_unit;
  return work;
}

/// Sums over (sequence, KV head) pairs, or over sequences, up to and with one of them.
struct schedule_entry {
  std::int64_t units = 0, row_blocks = 0;
  friend STRATA_DEVICE schedule_entry operator+(schedule_entry a, schedule_entry b) {
    return {a.units + b.units, a.row_blocks + b.row_blocks};
  }
};

/// Shared memory that a schedule borrows, at the front of the block's.
STRATA_HOST_DEVICE constexpr std::int32_t schedule_bytes(std::int32_t threads) noexcept {
  return (threads + 1 + warp_size) * static_cast<std::int32_t>(sizeof(schedule_entry));
}

/// Row blocks of query rows, and the keys that they read.
struct query_line {
  template <class T, class View>
  STRATA_DEVICE static head_work of(query_rows<T> const& q, View const& view,
                                    split_rule const& rule, std::int32_t seq,
                                    std::int32_t kv_head) {
    return work_of(q, view, rule, seq, kv_head);
  }
};

/// Row blocks of tokens of the cache: what `first_pair` and `pairs` of them then count.
struct token_line {
  template <class T, class View>
  STRATA_DEVICE static head_work of(query_rows<T> const&, View const& view, split_rule const& rule,
                                    std::int32_t seq, std::int32_t kv_head) {
    head_work work;
    work.pairs = view.length(seq, kv_head);
    work.row_blocks = ceil_divide(work.pairs, rule.block_rows);
    return work;
  }
};

/// The line of units, as the threads of one block walk it. Nobody else may touch the shared memory
/// that it borrows as long as there are walks to come: a batch that one scan takes in, of up to
/// `threads` entries, is scanned once for all of them, and a larger one once more for each.
template <thread_block Block, class T, class View, class Line = query_line>
class schedule {
  using entry = schedule_entry;

 public:
  STRATA_DEVICE schedule(Block const& block, query_rows<T> const& q, View const& view,
                         split_rule const& rule, std::int32_t threads, std::byte* shared)
      : block_(block),
        q_(q),
        view_(view),
        rule_(rule),
        threads_(threads),
        entries_(reinterpret_cast<entry*>(shared)),
        warps_(entries_ + threads + 1) {
    // A head of a sequence has the same keys as its others, unless lengths or positions are its
    // own.
    bool const own_keys = view.rows.length_per_head || view.rows.position_head_stride != 0;
    heads_ = own_keys ? view.kv_heads : 1;
    for (std::int32_t first = 0; first < num_entries(); first += threads_) bring(first);
    if (num_entries() > 0) total_ = entries_[threads_];
    parts_ = smaller<std::int64_t>(rule_.parts, total_.units);
    block.sync();
  }

  /// Calls body(piece) for this block's part of the line. All threads of the block take part.
  template <class Body>
  STRATA_DEVICE void for_each_piece(Body&& body) {
    auto const part = block_.index();
    if (part >= parts_) return;
    auto unit = total_.units * part / parts_;
    auto const end = total_.units * (part + 1) / parts_;
    for (std::int32_t first = 0; first < num_entries() && unit < end; first += threads_) {
      bring(first);
      while (unit < smaller(end, entries_[threads_].units)) {
        auto const next = piece_at(first, unit, end);
        body(next.what);
        unit = next.end;
      }
      block_.sync();  // before the next scan overwrites the entries
    }
  }

  /// Calls body(row_block) for every `block.count()`th row block, starting at this block's number.
  template <class Body>
  STRATA_DEVICE void for_each_row_block(Body&& body) {
    for_each_row_block(block_.index(), block_.count(), body);
  }
  /// Every `step`th, from number `next` on.
  template <class Body>
  STRATA_DEVICE void for_each_row_block(std::int64_t next, std::int64_t step, Body&& body) {
    for (std::int32_t first = 0; first < num_entries(); first += threads_) {
      bring(first);
      for (; next < entries_[threads_].row_blocks; next += step) body(row_block_at(first, next));
      block_.sync();
    }
  }

 private:
  struct piece_and_end {
    piece what;
    std::int64_t end;
  };
  /// One of the row blocks of an entry, by number.
  struct place {
    std::int32_t seq, kv_head, row_block;
    head_work work;
    std::int64_t first_unit;  // in the line
    std::int64_t ordinal;     // among all row blocks
  };

  STRATA_DEVICE std::int32_t num_entries() const { return q_.num_seqs * heads_; }
  STRATA_DEVICE std::int32_t heads_of_entry() const { return view_.kv_heads / heads_; }

  STRATA_DEVICE entry entry_of(std::int32_t i) const {
    if (i >= num_entries()) return {};
    auto const work = work_of_entry(i);
    auto const blocks = std::int64_t{work.row_blocks} * heads_of_entry();
    return {blocks * work.units, blocks};
  }

  /// Sums of all entries before `first`, and up to and with each of as many as there are threads:
  /// to shared memory, where those of the entries before still are unless there are none.
  STRATA_DEVICE void bring(std::int32_t first) {
    if (first == brought_) return;
    brought_ = first;
    scan(first);
  }
  STRATA_DEVICE void scan(std::int32_t first) {
    auto total = first == 0 ? entry{} : entries_[threads_];
    auto const lane = lane_of(block_), warp = warp_of(block_);
    auto sum = entry_of(first + block_.thread());
    auto const reach = smaller(warp_size, entries_from(first));
    for (std::int32_t distance = 1; distance < reach; distance *= 2) {
      auto const from = larger(lane - distance, 0);
      entry const other{block_.shuffle(sum.units, from), block_.shuffle(sum.row_blocks, from)};
      if (lane >= distance) sum = sum + other;
    }
    if (reach < warp_size) {  // what the lanes behind would have come to
      auto const from = smaller(lane, reach - 1);
      sum = {block_.shuffle(sum.units, from), block_.shuffle(sum.row_blocks, from)};
    }
    if (lane == warp_size - 1) warps_[warp] = sum;
    block_.sync();
    if (block_.thread() == 0) entries_[0] = total;
    for (std::int32_t w = 0; w < warp; ++w) total = total + warps_[w];
    entries_[block_.thread() + 1] = total + sum;
    block_.sync();
  }

  /// Entries that a scan from `first` on takes in.
  STRATA_DEVICE std::int32_t entries_from(std::int32_t first) const {
    return smaller(threads_, num_entries() - first);
  }

  /// The first entry since `first` whose sum exceeds `wanted`.
  STRATA_DEVICE std::int32_t find(std::int32_t first, std::int64_t entry::* sum,
                                  std::int64_t wanted) const {
    std::int32_t from = 0, to = entries_from(first) - 1;
    while (from < to) {
      auto const middle = (from + to) / 2;
      if (entries_[middle + 1].*sum > wanted)
        to = middle;
      else
        from = middle + 1;
    }
    return from;
  }

  STRATA_DEVICE head_work work_of_entry(std::int32_t i) const {
    return Line::of(q_, view_, rule_, i / heads_, i % heads_);
  }

  /// Row block `number` of entry `first` + i.
  STRATA_DEVICE place place_of(std::int32_t first, std::int32_t i, head_work const& work,
                               std::int64_t number) const {
    auto const start = entries_[i];
    place p;
    p.work = work;
    p.seq = (first + i) / heads_;
    p.kv_head = (first + i) % heads_ + static_cast<std::int32_t>(number / work.row_blocks);
    p.row_block = static_cast<std::int32_t>(number % work.row_blocks);
    p.first_unit = start.units + number * work.units;
    p.ordinal = start.row_blocks + number;
    return p;
  }

  STRATA_DEVICE std::int32_t pairs_of(place const& p) const {
    return smaller(rule_.block_rows, p.work.pairs - p.row_block * rule_.block_rows);
  }

  STRATA_DEVICE piece_and_end piece_at(std::int32_t first, std::int64_t unit,
                                       std::int64_t end) const {
    auto const i = find(first, &entry::units, unit);
    auto const work = work_of_entry(first + i);
    auto const p = place_of(first, i, work, (unit - entries_[i].units) / work.units);
    auto const last = rule_.fixed ? unit + 1 : smaller(end, p.first_unit + p.work.units);
    auto const key = [&](std::int64_t u) {
      return static_cast<std::int32_t>((p.work.first_unit + u - p.first_unit) * rule_.unit_keys);
    };
    piece what{p.seq, p.kv_head, p.row_block * rule_.block_rows, pairs_of(p), p.work.keys, 0};
    what.keys.begin = larger(what.keys.begin, key(unit));
    what.keys.end = smaller(what.keys.end, key(last));
    what.state = rule_.fixed ? unit : p.ordinal + part_of(unit);
    return {what, last};
  }

  STRATA_DEVICE row_block row_block_at(std::int32_t first, std::int64_t ordinal) const {
    auto const i = find(first, &entry::row_blocks, ordinal);
    auto const p = place_of(first, i, work_of_entry(first + i), ordinal - entries_[i].row_blocks);
    row_block block{p.seq, p.kv_head, p.row_block * rule_.block_rows, pairs_of(p), 0, 0};
    if (p.work.units == 0) return block;
    auto const last = p.first_unit + p.work.units - 1;
    block.first_state = rule_.fixed ? p.first_unit : p.ordinal + part_of(p.first_unit);
    block.num_states = rule_.fixed ? p.work.units : part_of(last) - part_of(p.first_unit) + 1;
    return block;
  }

  /// The part that a unit falls into: the last one that begins at or before it.
  STRATA_DEVICE std::int64_t part_of(std::int64_t unit) const {
    return ((unit + 1) * parts_ - 1) / total_.units;
  }

  Block const& block_;
  query_rows<T> const& q_;
  View const& view_;
  split_rule const& rule_;
  std::int32_t threads_;
  std::int32_t heads_ = 1;     // entries of a sequence
  std::int32_t brought_ = -1;  // the first entry of those in shared memory
  entry* entries_;             // [threads + 1], shared: entry i ends at entries_[i + 1]
  entry* warps_;               // [warps], shared
  entry total_;
  std::int64_t parts_ = 0;  // of the line. None is empty: it would leave a hole between states
};

/// States that a launch of these bounds keeps at most: `rows` query rows in `num_seqs` sequences of
/// up to `keys` tokens each.
constexpr std::int64_t most_states(split_rule const& rule, std::int64_t num_seqs, std::int64_t rows,
                                   std::int64_t keys, std::int32_t group,
                                   std::int32_t kv_heads) noexcept {
  auto const row_blocks = (num_seqs + rows * group / rule.block_rows) * kv_heads;
  if (!rule.fixed) return row_blocks + rule.parts;
  return row_blocks * (ceil_divide<std::int64_t>(keys, rule.unit_keys) + 1);
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
