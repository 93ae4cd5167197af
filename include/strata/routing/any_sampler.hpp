// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Routing strings: a sampler as a word that fits a command line. P is self_probability.
//
//     self              every layer reads itself
//     rcla:P            random_previous (R-CLA)
//     cla:K             fixed_route of every:K (CLA@K)
//     rdcla:K:P         coin_to_map of every:K (RD-CLA@K)
//     sets:R1,R2,...    random_leader_set of these retentions
//     mix:S/S/...       strategy_mixture of strategy strings
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include <strata/config.hpp>
#include <strata/detail/text_cursor.hpp>
#include <strata/map/strategy.hpp>
#include <strata/map/table_map.hpp>
#include <strata/routing/coin_to_map.hpp>
#include <strata/routing/fixed_route.hpp>
#include <strata/routing/random_leader_set.hpp>
#include <strata/routing/random_previous.hpp>
#include <strata/routing/sampler.hpp>
#include <strata/routing/self_only.hpp>
#include <strata/routing/strategy_mixture.hpp>

STRATA_NAMESPACE_BEGIN

/// A sampler chosen at run time: one of those that routing strings name. Itself a sampler. 2.1 KB.
class any_sampler {
 public:
  using variant = std::variant<self_only, random_previous<>, fixed_route<table_map>,
                               coin_to_map<table_map>, random_leader_set, strategy_mixture>;

  constexpr any_sampler() noexcept = default;
  template <class Sampler>
    requires std::constructible_from<variant, Sampler>
  constexpr any_sampler(Sampler const& sampler) noexcept : sampler_(sampler) {}

  constexpr layer_id operator()(candidates c, draw_key key) const noexcept {
    return std::visit([&](auto const& sampler) { return sampler(c, key); }, sampler_);
  }
  constexpr status check(kv_classes const& classes) const noexcept {
    auto const ask = [&](auto const& sampler) {
      return detail::check_parameters(sampler, classes);
    };
    return std::visit(ask, sampler_);
  }

  /// Replaces the self_probability by a schedule; `unsupported` for samplers that have none.
  constexpr status set_self_probability(probability_schedule const& schedule) noexcept {
    if (auto const s = schedule.check(); !s.ok()) return s;
    if (auto* const rcla = std::get_if<random_previous<>>(&sampler_))
      rcla->self_probability = schedule;
    else if (auto* const rdcla = std::get_if<coin_to_map<table_map>>(&sampler_))
      rdcla->self_probability = schedule;
    else
      return {errc::unsupported, no_layer, static_cast<std::int64_t>(sampler_.index()), 0};
    return {};
  }

  constexpr variant const& get() const noexcept { return sampler_; }

 private:
  variant sampler_;
};

namespace detail {

class routing_parser {
 public:
  constexpr routing_parser(std::string_view text, kv_classes const& classes) noexcept
      : text_(text), classes_(classes) {}

  constexpr result<any_sampler> sampler() noexcept {
    auto const parsed = form();
    if (!parsed.ok()) return parsed;
    if (auto const s = text_.expect_end(); !s.ok()) return s;
    return parsed;
  }

 private:
  constexpr result<any_sampler> form() noexcept {
    if (text_.take("self")) return any_sampler(self_only{});
    if (text_.take_word("rcla")) return rcla();
    if (text_.take_word("cla")) return cla();
    if (text_.take_word("rdcla")) return rdcla();
    if (text_.take_word("sets")) return sets();
    if (text_.take_word("mix")) return mix();
    return status{errc::parse_unknown_routing, no_layer, text_.position(), 0};
  }

  constexpr result<any_sampler> rcla() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    auto const self = text_.probability();
    if (!self.ok()) return self.state();
    return any_sampler(random_previous<>(*self));
  }

  constexpr result<table_map> every() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    auto const start = text_.position();
    auto const group_size = text_.integer(1, max_layers);
    if (!group_size.ok()) return group_size.state();
    layer_mask leaders;
    for (std::int32_t l = 0; l < classes_.num_layers(); l += *group_size) leaders.insert({l});
    auto const map = nearest_leader_map(leaders, classes_);
    if (map.ok()) return map;
    return without_leader(map.state().layer, start);
  }

  constexpr result<any_sampler> cla() noexcept {
    auto const map = every();
    if (!map.ok()) return map.state();
    return any_sampler(fixed_route<table_map>(*map));
  }

  constexpr result<any_sampler> rdcla() noexcept {
    auto const map = every();
    if (!map.ok()) return map.state();
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    auto const self = text_.probability();
    if (!self.ok()) return self.state();
    return any_sampler(coin_to_map<table_map>(*map, *self));
  }

  constexpr result<any_sampler> sets() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    double retentions[random_leader_set::max_retentions] = {};
    std::int32_t count = 0;
    do {
      if (count == random_leader_set::max_retentions) return too_many(count);
      auto const retention = text_.probability();
      if (!retention.ok()) return retention.state();
      retentions[count++] = *retention;
    } while (text_.take(","));
    return any_sampler(random_leader_set(std::span(retentions, static_cast<std::size_t>(count))));
  }

  constexpr result<any_sampler> mix() noexcept {
    if (auto const s = text_.expect(":"); !s.ok()) return s;
    table_map maps[strategy_mixture::max_maps];
    std::int32_t count = 0;
    do {
      if (count == strategy_mixture::max_maps) return too_many(count);
      auto const map = read_strategy(text_, classes_);
      if (!map.ok()) return map.state();
      maps[count++] = *map;
    } while (text_.take("/"));
    return any_sampler(strategy_mixture(std::span(maps, static_cast<std::size_t>(count))));
  }

  constexpr status too_many(std::int32_t bound) const noexcept {
    return {errc::parse_list_too_long, no_layer, text_.position(), bound};
  }

  text_cursor text_;
  kv_classes const& classes_;
};

}  // namespace detail

/// The sampler that a routing string means for a model. Errors carry the offset of the character;
/// `describe(status, text)` shows it.
constexpr result<any_sampler> parse_routing(std::string_view text,
                                            kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  return detail::routing_parser(text, classes).sampler();
}

STRATA_NAMESPACE_END
