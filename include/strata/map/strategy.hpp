// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Strategy strings: a layer map as a word that fits a command line, a request or a file name.
//
//     full              every layer leads
//     every:K           layers 0, K, 2K, ... lead; the last group may be short
//     spread:N          N leaders, leader i is floor(i * L / N)
//     groups:2,3,...    group sizes from the bottom, which add up to L; the first of each leads
//     leaders:0,4,9     exactly these lead, in ascending order
//     tail:N            the last N layers keep nothing
//
// Every other layer reads the nearest leader before it that it may read: eq. 3.2 of
// arXiv:2604.22782 within its KV class. Threads: any number parse at the same time.
#pragma once

#include <cstdint>
#include <string_view>

#include <strata/config.hpp>
#include <strata/detail/text_cursor.hpp>
#include <strata/geometry.hpp>
#include <strata/map/leader_set.hpp>
#include <strata/map/spread_map.hpp>
#include <strata/map/table_map.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// The map in which exactly the members of `leaders` that have K/V lead, and every other layer
/// reads the nearest one that it may read. Names the first layer that finds none.
constexpr result<table_map> nearest_leader_map(layer_mask const& leaders,
                                               kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  std::int32_t sources[max_layers] = {};
  for (layer_id reader{0}; classes.num_layers() > reader.index; ++reader.index) {
    layer_id source = reader;
    auto const usable = [&](layer_id l) {
      return leaders.contains(l) && classes.readable(reader, l, use::serving).ok();
    };
    if (classes[reader].has_kv)
      while (source.valid() && !usable(source)) --source.index;
    if (!source.valid()) return status{errc::no_leader_before, reader, source.index, 0};
    sources[reader.index] = source.index;
  }
  return table_map::make({sources, static_cast<std::size_t>(classes.num_layers())});
}

namespace detail {

/// What became of a layer under the number at `offset`.
constexpr status without_leader(layer_id reader, std::int64_t offset) noexcept {
  return {errc::parse_no_leader_before, reader, offset, 0};
}

/// The leaders that each form names, and which number of the text decided about each layer.
class strategy_parser {
 public:
  constexpr strategy_parser(text_cursor& text, kv_classes const& classes) noexcept
      : text_(text), classes_(classes), layers_(classes.num_layers()) {}

  /// Where the number stands that left `reader` without a leader: the one of the form, the size of
  /// the layer's group, or the first leader listed that comes too late.
  constexpr std::int64_t decided_at(layer_id reader) const noexcept {
    return decided_at_[reader.index];
  }

  constexpr result<layer_mask> leaders() noexcept {
    if (text_.take("full")) return every(1);
    if (text_.take_word("every")) return with_number(1, max_layers, &strategy_parser::every);
    if (text_.take_word("spread")) return with_number(1, layers_, &strategy_parser::spread);
    if (text_.take_word("tail")) return with_number(0, layers_ - 1, &strategy_parser::tail);
    if (text_.take_word("groups")) return groups();
    if (text_.take_word("leaders")) return listed();
    return status{errc::parse_unknown_strategy, no_layer, text_.position(), 0};
  }

 private:
  constexpr result<layer_mask> with_number(std::int32_t low, std::int32_t high,
                                           layer_mask (strategy_parser::*form)(std::int32_t)
                                               const noexcept) noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    decide(0, layers_, text_.position());
    auto const number = text_.integer(low, high);
    if (!number.ok()) return number.state();
    return (this->*form)(*number);
  }

  constexpr layer_mask every(std::int32_t group_size) const noexcept {
    layer_mask mask;
    for (std::int32_t l = 0; l < layers_; l += group_size) mask.insert({l});
    return mask;
  }
  constexpr layer_mask spread(std::int32_t count) const noexcept {
    layer_mask mask;
    spread_map const map(layers_, count);
    for (std::int32_t l = 0; l < layers_; ++l) mask.insert(map.source({l}));
    return mask;
  }
  constexpr layer_mask tail(std::int32_t count) const noexcept {
    layer_mask mask;
    for (std::int32_t l = 0; l < layers_ - count; ++l) mask.insert({l});
    return mask;
  }

  constexpr result<layer_mask> groups() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    auto const start = text_.position();
    layer_mask mask;
    std::int32_t first = 0;
    do {
      auto const at = text_.position();
      auto const size = text_.integer(1, max_layers);
      if (!size.ok()) return size.state();
      if (first + *size > layers_)
        return status{errc::parse_group_too_large, no_layer, at, layers_};
      mask.insert({first});
      decide(first, first + *size, at);
      first += *size;
    } while (text_.take(","));
    if (first != layers_) return status{errc::parse_groups_do_not_fill, no_layer, start, layers_};
    return mask;
  }

  constexpr result<layer_mask> listed() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    layer_mask mask;
    std::int32_t previous = -1;
    do {
      auto const start = text_.position();
      auto const leader = text_.integer(0, layers_ - 1);
      if (!leader.ok()) return leader.state();
      if (*leader <= previous) return status{errc::parse_not_ascending, no_layer, start, previous};
      if (previous < 0 && *leader > first_with_kv())
        return status{errc::parse_first_layer_must_lead, no_layer, start, first_with_kv()};
      if (!classes_[{*leader}].has_kv)
        return status{errc::parse_leader_without_kv, no_layer, start, *leader};
      mask.insert({*leader});
      decide(previous + 1, *leader + 1, start);
      previous = *leader;
    } while (text_.take(","));
    decide(previous + 1, layers_, text_.position());
    return mask;
  }
  constexpr void decide(std::int32_t first, std::int32_t last, std::int64_t offset) noexcept {
    for (auto l = first; l < last; ++l) decided_at_[l] = offset;
  }
  constexpr std::int32_t first_with_kv() const noexcept {
    std::int32_t l = 0;
    while (l + 1 < layers_ && !classes_[{l}].has_kv) ++l;
    return l;
  }

  text_cursor& text_;
  kv_classes const& classes_;
  std::int32_t layers_;
  std::int64_t decided_at_[max_layers] = {};
};

/// Reads one strategy and leaves the cursor behind it.
constexpr result<table_map> read_strategy(text_cursor& text, kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  strategy_parser parser(text, classes);
  auto const leaders = parser.leaders();
  if (!leaders.ok()) return leaders.state();
  auto const map = nearest_leader_map(*leaders, classes);
  if (map.ok()) return map;
  return without_leader(map.state().layer, parser.decided_at(map.state().layer));
}

}  // namespace detail

/// The map that a strategy string means for a model. Errors carry the offset of the character;
/// `describe(status, text)` shows it.
constexpr result<table_map> parse_strategy(std::string_view text,
                                           kv_classes const& classes) noexcept {
  detail::text_cursor cursor(text);
  auto const map = detail::read_strategy(cursor, classes);
  if (!map.ok()) return map;
  if (auto const s = cursor.expect_end(); !s.ok()) return s;
  return map;
}

/// The same for a model whose layers are all alike.
constexpr result<table_map> parse_strategy(std::string_view text,
                                           std::int32_t num_layers) noexcept {
  return parse_strategy(text, kv_classes::uniform(num_layers));
}

STRATA_NAMESPACE_END
