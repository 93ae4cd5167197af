// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a storage writes down about its sequences: plans, lengths, positions, and what a step in
// progress has staged. A storage of one's own may use it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>

#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/plan.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// The first of so many tokens that stands at `position` or later. positions: ascending, or null:
/// token t stands at position t.
inline std::int32_t first_token_at(std::int32_t const* positions, std::int32_t length,
                                   std::int64_t position) noexcept {
  if (positions == nullptr)
    return static_cast<std::int32_t>(
        smaller<std::int64_t>(larger<std::int64_t>(position, 0), length));
  return static_cast<std::int32_t>(std::lower_bound(positions, positions + length, position) -
                                   positions);
}

}  // namespace detail

/// All calls are noexcept; nothing is allocated after `prepare`. Threads: const calls at the same
/// time; any other call alone.
class sequence_book {
 public:
  status prepare(std::int32_t max_sequences, std::int32_t max_tokens) noexcept {
    if (max_sequences < 1) return {errc::bad_max_sequences, no_layer, max_sequences, 1};
    if (max_tokens < 1) return {errc::bad_max_tokens, no_layer, max_tokens, 1};
    auto const cells = checked_multiply(max_sequences, max_tokens);
    if (!cells.ok()) return cells.state();
    if (auto const s = records_.assign(max_sequences, {}); !s.ok()) return s;
    if (auto const s = staged_.grow(max_sequences); !s.ok()) return s;
    max_tokens_ = max_tokens;
    return positions_.grow(*cells);
  }

  std::int32_t max_sequences() const noexcept { return static_cast<std::int32_t>(records_.size()); }
  std::int32_t max_tokens() const noexcept { return max_tokens_; }

  result<sequence_id> open(route_plan const& plan, std::int32_t num_layers) noexcept {
    if (in_step()) return status{errc::step_in_progress};
    if (plan.num_layers != num_layers)
      return status{errc::plan_mismatch, no_layer, plan.num_layers, num_layers};
    auto const id = first_closed();
    if (!id.valid())
      return status{errc::too_many_sequences, no_layer, max_sequences(), max_sequences()};
    records_[id.index] = {plan, 0, 0, true, false, false, 0, 0};
    ++num_open_;
    return id;
  }

  status close(sequence_id id) noexcept {
    if (auto const s = check_idle(id); !s.ok()) return s;
    gapped_ -= at(id).gapped;
    at(id) = {};
    --num_open_;
    return {};
  }

  /// A sequence of its own with the plan, the tokens and the positions of another.
  result<sequence_id> fork(sequence_id parent) noexcept {
    if (auto const s = check_idle(parent); !s.ok()) return s;
    auto const child = first_closed();
    if (!child.valid())
      return status{errc::too_many_sequences, no_layer, max_sequences(), max_sequences()};
    auto const& from = at(parent);
    records_[child.index] = from;
    ++num_open_;
    note_tables(child);
    gapped_ += from.gapped;
    // Where there are no gaps positions are written, not copied: rows that lie a multiple of 4096
    // bytes apart are copied at 3.5 GB/s (Zen 4), since each load waits for a store that it seems to
    // follow.
    if (!from.gapped)
      count_positions(child, from.length);
    else
      std::memcpy(positions_of(child), positions_of(parent),
                  static_cast<std::size_t>(from.length) * sizeof(std::int32_t));
    return child;
  }

  /// The position after a sequence's first `length` tokens.
  std::int32_t position_after(sequence_id id, std::int32_t length) const noexcept {
    return length == 0 ? 0 : positions_of(id)[length - 1] + 1;
  }

  /// Whether a sequence may be cut down to its first `length` tokens.
  status check_truncate(sequence_id id, std::int32_t length) const noexcept {
    if (auto const s = check_idle(id); !s.ok()) return s;
    if (length < 0 || length > at(id).length)
      return {errc::bad_truncation, no_layer, length, at(id).length};
    return {};
  }
  void truncate(sequence_id id, std::int32_t length) noexcept {
    auto& record = at(id);
    record.next_position = position_after(id, length);
    record.length = length;
    // Positions ascend: a gap before a token shows in the token's own.
    bool const gapped = record.next_position != length;
    gapped_ -= record.gapped && !gapped;
    record.gapped = gapped;
    record.approximate = record.approximate && length > 0;
  }

  /// The first of a sequence's tokens that stands at `position` or later.
  std::int32_t first_token_at(sequence_id id, std::int64_t position) const noexcept {
    auto const& record = at(id);
    return detail::first_token_at(record.gapped ? positions_of(id) : nullptr, record.length,
                                  position);
  }

  /// Gives an empty sequence its first tokens, at positions 0, 1, ...
  void adopt(sequence_id id, std::int32_t length) noexcept {
    count_positions(id, length);
    at(id).length = at(id).next_position = length;
    note_tables(id);
  }

  status check_import(imported_sequence const& from) const noexcept {
    if (in_step()) return {errc::step_in_progress};
    if (from.length < 0) return {errc::bad_new_tokens, no_layer, from.length, 0};
    if (from.length > max_tokens_) return {errc::sequence_full, no_layer, from.length, max_tokens_};
    auto const given = static_cast<std::int64_t>(from.positions.size());
    if (given == 0) return {};
    if (given < from.length) return {errc::too_few_tokens, no_layer, given, from.length};
    std::int32_t least = 0;
    for (std::int32_t t = 0; t < from.length; ++t) {
      auto const position = from.positions[static_cast<std::size_t>(t)];
      if (position < least) return {errc::position_not_ahead, no_layer, position, least};
      if (position == (std::numeric_limits<std::int32_t>::max)())
        return {errc::position_too_large, no_layer, position, position - 1};
      least = position + 1;
    }
    return {};
  }
  /// Makes an empty sequence the one that `check_import` found good.
  void take_in(sequence_id id, imported_sequence const& from) noexcept {
    adopt(id, from.length);
    auto& record = at(id);
    if (!from.positions.empty() && from.length > 0) {
      std::memcpy(positions_of(id), from.positions.data(),
                  static_cast<std::size_t>(from.length) * sizeof(std::int32_t));
      record.next_position = position_after(id, from.length);
      record.gapped = record.next_position != from.length;
      gapped_ += record.gapped;
    }
    record.approximate = from.approximate && from.length > 0;
  }
  /// [length], of a sequence.
  std::span<std::int32_t const> positions_of_tokens(sequence_id id) const noexcept {
    return {positions_of(id), static_cast<std::size_t>(length(id))};
  }
  bool approximate(sequence_id id) const noexcept { return at(id).approximate; }

  /// Whether a sequence's K and V are what its plan computes from its tokens, at positions without
  /// gaps.
  status check_exact(sequence_id id) const noexcept {
    if (auto const s = check_idle(id); !s.ok()) return s;
    if (at(id).approximate) return {errc::cache_approximate, no_layer, id.index, 0};
    if (at(id).gapped) return {errc::positions_gapped, no_layer, at(id).next_position, length(id)};
    return {};
  }
  void set_approximate(sequence_id id) noexcept { at(id).approximate = length(id) > 0; }

  /// Changes whenever a sequence's rows of tables change otherwise than by the tokens of a step, and
  /// is 0 until then: for who keeps copies of them.
  std::uint64_t table_version(sequence_id id) const noexcept { return at(id).tables; }
  void note_tables(sequence_id id) noexcept { at(id).tables = ++table_changes_; }

  void set_plan(sequence_id id, route_plan const& plan) noexcept { at(id).plan = plan; }

  std::int32_t num_closed() const noexcept { return max_sequences() - num_open_; }

  status check_open(sequence_id id) const noexcept {
    bool const known = id.valid() && id.index < max_sequences() && records_[id.index].open;
    if (!known) return {errc::unknown_sequence, no_layer, id.index, num_open_};
    return {};
  }

  /// The same, and that no step is in progress.
  status check_idle(sequence_id id) const noexcept {
    if (in_step()) return {errc::step_in_progress};
    return check_open(id);
  }

  /// Of open sequences only.
  route_plan const& plan(sequence_id id) const noexcept { return at(id).plan; }
  std::int32_t length(sequence_id id) const noexcept { return at(id).length; }
  std::int32_t next_position(sequence_id id) const noexcept { return at(id).next_position; }

  /// Whether the growths could be staged, blocks aside. Changes nothing that shows.
  status check(std::span<growth const> growths) noexcept {
    if (in_step()) return {errc::step_in_progress};
    ++check_round_;
    for (auto const& g : growths) {
      if (auto const s = check(g); !s.ok()) return s;
      auto& seen = at(g.sequence).seen_in_round;
      if (seen == check_round_) return {errc::duplicate_sequence, no_layer, g.sequence.index, 1};
      seen = check_round_;
    }
    return {};
  }

  /// Notes growths that passed `check`, and the positions of the new tokens.
  void stage(std::span<growth const> growths) noexcept {
    for (auto g : growths) {
      if (g.first_position == continue_position) g.first_position = next_position(g.sequence);
      auto* const row = positions_of(g.sequence);
      for (std::int32_t i = 0; i < g.new_tokens; ++i)
        row[length(g.sequence) + i] = g.first_position + i;
      // A gap counts from the moment it is staged: the step itself reads these positions.
      bool const gap = g.new_tokens > 0 && g.first_position != length(g.sequence);
      staged_gaps_ += gap;
      staged_[num_staged_++] = g;
    }
    in_step_ = true;
  }

  std::span<growth const> staged() const noexcept { return staged_.first(num_staged_); }
  bool in_step() const noexcept { return in_step_; }

  void commit() noexcept {
    for (auto const& g : staged()) {
      if (g.new_tokens == 0) continue;
      auto& record = at(g.sequence);
      bool const gap = g.first_position != record.length;
      gapped_ += gap && !record.gapped;
      record.gapped = record.gapped || gap;
      record.length += g.new_tokens;
      record.next_position = g.first_position + g.new_tokens;
    }
    forget();
  }

  /// Forgets what was staged.
  void forget() noexcept {
    num_staged_ = 0;
    staged_gaps_ = 0;
    in_step_ = false;
  }

  /// [max_sequences, max_tokens], kept whether `positions` needs them or not.
  std::span<std::int32_t const> all_positions() const noexcept {
    return positions_.first(positions_.size());
  }

  position_table positions() const noexcept {
    if (gapped_ == 0 && staged_gaps_ == 0) return {};
    return {positions_.data(), max_tokens_};
  }

 private:
  struct sequence_record {
    route_plan plan = {};
    std::int32_t length = 0;
    std::int32_t next_position = 0;
    bool open = false;
    bool gapped = false;              // some token t does not stand at position t
    bool approximate = false;         // some K and V are not what the plan computes
    std::uint64_t seen_in_round = 0;  // finds a sequence that is named twice
    std::uint64_t tables = 0;         // see table_version
  };

  sequence_id first_closed() const noexcept {
    if (num_open_ == max_sequences()) return no_sequence;
    for (sequence_id id{0}; max_sequences() > id.index; ++id.index)
      if (!records_[id.index].open) return id;
    return no_sequence;
  }

  /// 0, 1, ...
  void count_positions(sequence_id id, std::int32_t length) noexcept {
    auto* const row = positions_of(id);
    for (std::int32_t t = 0; t < length; ++t) row[t] = t;
  }

  std::int32_t* positions_of(sequence_id id) noexcept {
    return positions_.data() + std::int64_t{id.index} * max_tokens_;
  }
  std::int32_t const* positions_of(sequence_id id) const noexcept {
    return positions_.data() + std::int64_t{id.index} * max_tokens_;
  }

  sequence_record& at(sequence_id id) noexcept {
    STRATA_ASSERT(check_open(id).ok());
    return records_[id.index];
  }
  sequence_record const& at(sequence_id id) const noexcept {
    STRATA_ASSERT(check_open(id).ok());
    return records_[id.index];
  }

  status check(growth const& g) const noexcept {
    if (auto const s = check_open(g.sequence); !s.ok()) return s;
    if (g.new_tokens < 0) return {errc::bad_new_tokens, no_layer, g.new_tokens, 0};
    auto const tokens = std::int64_t{length(g.sequence)} + g.new_tokens;
    if (tokens > max_tokens_) return {errc::sequence_full, no_layer, tokens, max_tokens_};
    auto const next = next_position(g.sequence);
    if (g.first_position != continue_position && g.first_position < next)
      return {errc::position_not_ahead, no_layer, g.first_position, next};
    auto const first = g.first_position == continue_position ? next : g.first_position;
    auto const last = std::int64_t{first} + g.new_tokens;
    if (last > (std::numeric_limits<std::int32_t>::max)())
      return {errc::position_too_large, no_layer, last, (std::numeric_limits<std::int32_t>::max)()};
    return {};
  }

  detail::array<sequence_record> records_;  // [max_sequences]
  detail::array<std::int32_t> positions_;   // [max_sequences, max_tokens]
  detail::array<growth> staged_;            // [max_sequences]
  std::uint64_t check_round_ = 0;
  std::uint64_t table_changes_ = 0;
  std::int32_t max_tokens_ = 0;
  std::int32_t num_staged_ = 0;
  std::int32_t staged_gaps_ = 0;
  std::int32_t gapped_ = 0;
  std::int32_t num_open_ = 0;
  bool in_step_ = false;
};

STRATA_NAMESPACE_END
