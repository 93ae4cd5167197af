// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Maps as engines, model files and papers write them. `from_` reads a form and gives a map that
// passes `check` for the model's classes, or says what breaks it; `to_` writes one, or refuses where
// the form has no words for the map, and names the layer.
//
//   form                                              who writes it
//   shared_tail       num_kv_shared_layers            Hugging Face: Gemma 3n, Gemma 4, AFM's R
//   positional_tail   shared_kv_layers                llama.cpp: the same models, by position
//   reuse_index       a source per layer, or -1       llama.cpp's layer_reuse_cb, vLLM's targets
//   sharing_pattern   a source per layer              CLA: dolomite-engine
//   share_factor      cla_share_factor                Hunyuan
//   groups            kv_reuse_group                  Hymba: the first of each leads
//   source_layers     kv_source_layer_ids             DeepSeek-V4.1: leaders, others read the nearest
//   relative          reuse_kv_layer_idx              llm-foundry: how far back, as a number below 0
//   layer_string      0_1s_1s_3s                      LCKV: s marks a sliding window
//   source_lists      several sources a layer         FusedKV and the like: read to be refused
//
// Threads: functions of their arguments alone; any number at the same time.
//
// Facts from the projects' sources and configurations, read in 2026.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <strata/config.hpp>
#include <strata/detail/text_cursor.hpp>
#include <strata/geometry.hpp>
#include <strata/map/layer_map.hpp>
#include <strata/map/layer_mask.hpp>
#include <strata/map/strategy.hpp>
#include <strata/map/table_map.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace forms {

namespace detail {

/// The map of sources that were written down, where it is one of this model.
constexpr result<table_map> checked(std::span<std::int32_t const> sources,
                                    kv_classes const& classes) noexcept {
  auto const map = table_map::make(sources);
  if (!map.ok()) return map;
  if (auto const s = check(*map, classes); !s.ok()) return s;
  return map;
}

constexpr status check_count(std::size_t given, kv_classes const& classes) noexcept {
  auto const count = static_cast<std::int64_t>(given);
  if (auto const s = classes.check(); !s.ok()) return s;
  if (count == classes.num_layers()) return {};
  return {errc::layer_count_mismatch, no_layer, count, classes.num_layers()};
}

/// Refuses where a map reads another layer than a form would say.
constexpr status same(table_map const& form, table_map const& map,
                      kv_classes const& classes) noexcept {
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index)
    if (classes[l].has_kv && form.source(l) != map.source(l))
      return {errc::form_cannot_express, l, map.source(l).index, form.source(l).index};
  return {};
}

/// The sources of a tail: source(layer) for those of the last `num_shared` that have K/V.
template <class Source>
constexpr result<table_map> tail(std::int32_t num_shared, kv_classes const& classes,
                                 Source const& source) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  auto const layers = classes.num_layers();
  if (num_shared < 0) return status{errc::value_too_small, no_layer, num_shared, 0};
  if (num_shared > layers) return status{errc::value_too_large, no_layer, num_shared, layers};
  std::int32_t sources[max_layers] = {};
  for (layer_id l{0}; layers > l.index; ++l.index) {
    bool const shares = l.index >= layers - num_shared && classes[l].has_kv;
    auto const from = shares ? source(l) : l;
    if (!from.valid()) return status{errc::no_leader_before, l, from.index, 0};
    sources[l.index] = from.index;
  }
  return checked({sources, static_cast<std::size_t>(layers)}, classes);
}

}  // namespace detail

/// The last `num_shared` layers read the last layer of their own kind before them. What Hugging
/// Face's layer_types tell apart are kinds of layer here.
constexpr result<table_map> from_shared_tail(std::int32_t num_shared,
                                             kv_classes const& classes) noexcept {
  return detail::tail(num_shared, classes, [&](layer_id l) {
    layer_id source{classes.num_layers() - num_shared - 1};
    while (source.valid() && classes.kind_of(source) != classes.kind_of(l)) --source.index;
    return source;
  });
}

/// How many layers at the end share.
constexpr result<std::int32_t> to_shared_tail(table_map const& map,
                                              kv_classes const& classes) noexcept {
  if (auto const s = check(map, classes); !s.ok()) return s;
  auto first = map.num_layers();
  for (layer_id l{map.num_layers() - 1}; l.valid(); --l.index) {
    if (classes[l].has_kv && map.source(l) == l) break;
    first = l.index;
  }
  // Layers without K/V at the border belong to neither side.
  while (first < map.num_layers() && !classes[{first}].has_kv) ++first;
  auto const count = map.num_layers() - first;
  auto const form = from_shared_tail(count, classes);
  if (!form.ok()) return form.state();
  if (auto const s = detail::same(*form, map, classes); !s.ok()) return s;
  return count;
}

/// llama.cpp's rule for the same models: with f layers before the tail, a layer with a window reads
/// f - 2, another f - 1. It is shared_tail's where the two layers before the tail are one of a window
/// and one without, and else another map.
constexpr result<table_map> from_positional_tail(std::int32_t num_shared,
                                                 kv_classes const& classes) noexcept {
  return detail::tail(num_shared, classes, [&](layer_id l) {
    bool const slides = classes[l].window < unbounded_window;
    return layer_id{classes.num_layers() - num_shared - (slides ? 2 : 1)};
  });
}

/// sources: [num_layers], -1 for a layer that keeps its own K/V or has none. vLLM names a layer's
/// target (kv_sharing_target_layer_name), of which this is the number.
constexpr result<table_map> from_reuse_index(std::span<std::int32_t const> sources,
                                             kv_classes const& classes) noexcept {
  if (auto const s = detail::check_count(sources.size(), classes); !s.ok()) return s;
  std::int32_t all[max_layers] = {};
  for (std::int32_t l = 0; l < classes.num_layers(); ++l) {
    auto const source = sources[static_cast<std::size_t>(l)];
    all[l] = source == -1 ? l : source;
  }
  return detail::checked(std::span(all).first(sources.size()), classes);
}
/// Writes [num_layers] numbers.
constexpr status to_reuse_index(table_map const& map, kv_classes const& classes,
                                std::span<std::int32_t> sources) noexcept {
  if (auto const s = check(map, classes); !s.ok()) return s;
  if (auto const s = detail::check_count(sources.size(), classes); !s.ok()) return s;
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index) {
    bool const reads = classes[l].has_kv && map.source(l) != l;
    sources[static_cast<std::size_t>(l.index)] = reads ? map.source(l).index : -1;
  }
  return {};
}

/// sources: [num_layers], each layer's; a leader's is itself. CLA's descend never: groups are
/// neighbours.
constexpr result<table_map> from_sharing_pattern(std::span<std::int32_t const> sources,
                                                 kv_classes const& classes) noexcept {
  if (auto const s = detail::check_count(sources.size(), classes); !s.ok()) return s;
  for (std::size_t l = 1; l < sources.size(); ++l)
    if (sources[l] < sources[l - 1])
      return status{
          errc::pattern_descends, {static_cast<std::int32_t>(l)}, sources[l], sources[l - 1]};
  return detail::checked(sources, classes);
}

/// Layer l reads l - l % factor.
constexpr result<table_map> from_share_factor(std::int32_t factor,
                                              kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  if (factor < 1) return status{errc::value_too_small, no_layer, factor, 1};
  std::int32_t sources[max_layers] = {};
  for (std::int32_t l = 0; l < classes.num_layers(); ++l) sources[l] = l - l % factor;
  return detail::checked({sources, static_cast<std::size_t>(classes.num_layers())}, classes);
}
/// The smallest factor that says the map: a layer without K/V leaves several open.
constexpr result<std::int32_t> to_share_factor(table_map const& map,
                                               kv_classes const& classes) noexcept {
  if (auto const s = check(map, classes); !s.ok()) return s;
  auto const layers = map.num_layers();
  auto const reads_first = [&](layer_id l) { return map.source(l) == layer_id{0}; };
  // Groups end behind the last of the layers that read the first, and no later than at the next
  // leader.
  std::int32_t least = 1, most = 1;
  for (; layers > most && (!classes[{most}].has_kv || reads_first({most})); ++most)
    if (classes[{most}].has_kv) least = most + 1;
  status outcome;
  for (auto factor = least; factor <= most; ++factor) {
    auto const form = from_share_factor(factor, classes);
    outcome = form.ok() ? detail::same(*form, map, classes) : form.state();
    if (outcome.ok()) return factor;
  }
  return outcome;
}

/// Groups one after the other, layers: all of them, group g being layers[offsets[g]...offsets[g + 1]].
/// The first of a group is the source of all. Layers in no group keep their own.
constexpr result<table_map> from_groups(std::span<std::int32_t const> layers,
                                        std::span<std::int32_t const> offsets,
                                        kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  auto const count = classes.num_layers();
  std::int32_t sources[max_layers] = {};
  for (std::int32_t l = 0; l < count; ++l) sources[l] = l;
  layer_mask seen;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    auto const begin = offsets[g], end = offsets[g + 1];
    if (begin < 0 || end < begin || end > static_cast<std::int64_t>(layers.size()))
      return status{errc::offsets_descend, no_layer, end, begin};
    for (auto i = begin; i < end; ++i) {
      auto const l = layers[static_cast<std::size_t>(i)];
      if (l < 0 || l >= count) return status{errc::layer_out_of_range, {l}, l, count};
      if (seen.contains({l})) return status{errc::layer_in_two_groups, {l}, l, 0};
      seen.insert({l});
      sources[l] = layers[static_cast<std::size_t>(begin)];
    }
  }
  return detail::checked({sources, static_cast<std::size_t>(count)}, classes);
}

/// Leaders in ascending order; every other layer with K/V reads the nearest one that it may.
constexpr result<table_map> from_source_layers(std::span<std::int32_t const> leaders,
                                               kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  layer_mask mask;
  std::int32_t before = -1;
  for (auto const l : leaders) {
    if (l < 0 || l >= classes.num_layers())
      return status{errc::layer_out_of_range, {l}, l, classes.num_layers()};
    if (l <= before) return status{errc::list_not_ascending, {l}, l, before};
    if (!classes[{l}].has_kv) return status{errc::source_without_kv, {l}, l, 0};
    mask.insert({l});
    before = l;
  }
  return nearest_leader_map(mask, classes);
}
/// Writes the leaders and says how many they are.
constexpr result<std::int32_t> to_source_layers(table_map const& map, kv_classes const& classes,
                                                std::span<std::int32_t> leaders) noexcept {
  if (auto const s = check(map, classes); !s.ok()) return s;
  std::int32_t count = 0;
  layer_mask mask;
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index) {
    if (!classes[l].has_kv || map.source(l) != l) continue;
    if (static_cast<std::size_t>(count) == leaders.size())
      return status{errc::memory_too_small, l, count, num_leaders(map, classes)};
    leaders[static_cast<std::size_t>(count++)] = l.index;
    mask.insert(l);
  }
  auto const form = nearest_leader_map(mask, classes);
  if (!form.ok()) return form.state();
  if (auto const s = detail::same(*form, map, classes); !s.ok()) return s;
  return count;
}

/// back: [num_layers], 0 for a layer of its own, -d for one that reads d layers before it. Chains are
/// followed to their end, as llm-foundry does.
constexpr result<table_map> from_relative(std::span<std::int32_t const> back,
                                          kv_classes const& classes) noexcept {
  if (auto const s = detail::check_count(back.size(), classes); !s.ok()) return s;
  std::int32_t sources[max_layers] = {};
  for (std::int32_t l = 0; l < classes.num_layers(); ++l) {
    auto const d = back[static_cast<std::size_t>(l)];
    if (d > 0) return status{errc::source_above_reader, {l}, std::int64_t{l} + d, l};
    if (-std::int64_t{d} > l)
      return status{errc::source_out_of_range, {l}, std::int64_t{l} + d, classes.num_layers()};
    sources[l] = d == 0 ? l : sources[l + d];
  }
  return detail::checked({sources, back.size()}, classes);
}

/// What a layer string says.
struct layer_string {
  table_map map;
  layer_mask sliding;  ///< layers that are marked s
};

/// One source per layer, separated by `_`, with an s where the layer slides. Whether that fits the
/// model's windows is the caller's to compare. A source above its reader, which LCKV's iterations
/// allow, is refused: here a layer's K/V exist before anybody reads them.
constexpr result<layer_string> from_layer_string(std::string_view text,
                                                 kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  strata::detail::text_cursor cursor(text);
  layer_string read;
  std::int32_t sources[max_layers] = {};
  auto const layers = classes.num_layers();
  for (std::int32_t l = 0; l < layers; ++l) {
    if (l > 0)
      if (!cursor.take("_"))
        return cursor.done() ? status{errc::layer_count_mismatch, no_layer, l, layers}
                             : status{errc::parse_trailing_text, no_layer, cursor.position(), 0};
    auto const source = cursor.integer(0, max_layers - 1);
    if (!source.ok()) return source.state();
    if (*source > l) return status{errc::source_above_reader, {l}, *source, l};
    sources[l] = *source;
    if (cursor.take("s")) read.sliding.insert({l});
  }
  if (auto const s = cursor.expect_end(); !s.ok()) return s;
  auto const map = detail::checked({sources, static_cast<std::size_t>(layers)}, classes);
  if (!map.ok()) return map.state();
  read.map = *map;
  return read;
}
/// Writes the string, with an s for every layer that has a window; says how long it is.
constexpr result<std::int32_t> to_layer_string(table_map const& map, kv_classes const& classes,
                                               std::span<char> text) noexcept {
  if (auto const s = check(map, classes); !s.ok()) return s;
  std::size_t size = 0;
  auto const put = [&](char c) {
    if (size < text.size()) text[size] = c;
    ++size;
  };
  for (layer_id l{0}; map.num_layers() > l.index; ++l.index) {
    if (l.index > 0) put('_');
    auto const source = classes[l].has_kv ? map.source(l).index : l.index;
    for (std::int32_t unit = 100; unit > 0; unit /= 10)
      if (source >= unit || unit == 1) put(static_cast<char>('0' + source / unit % 10));
    if (classes[l].window < unbounded_window) put('s');
  }
  if (size > text.size())
    return status{errc::memory_too_small, no_layer, static_cast<std::int64_t>(text.size()),
                  static_cast<std::int64_t>(size)};
  return static_cast<std::int32_t>(size);
}

/// Sources of each layer one after the other, those of layer l being sources[offsets[l]...
/// offsets[l + 1]]; none: its own. A layer that makes its K (or V) of several others', as by a gated
/// sum, is refused: a plan gives each layer one source.
constexpr result<table_map> from_source_lists(std::span<std::int32_t const> sources,
                                              std::span<std::int32_t const> offsets,
                                              kv_classes const& classes) noexcept {
  if (auto const s = classes.check(); !s.ok()) return s;
  auto const layers = classes.num_layers();
  if (offsets.size() != static_cast<std::size_t>(layers) + 1)
    return status{errc::layer_count_mismatch, no_layer,
                  static_cast<std::int64_t>(offsets.size()) - 1, layers};
  std::int32_t all[max_layers] = {};
  for (std::int32_t l = 0; l < layers; ++l) {
    auto const begin = offsets[static_cast<std::size_t>(l)];
    auto const end = offsets[static_cast<std::size_t>(l) + 1];
    if (begin < 0 || end < begin || end > static_cast<std::int64_t>(sources.size()))
      return status{errc::offsets_descend, {l}, end, begin};
    if (end - begin > 1) return status{errc::several_sources, {l}, end - begin, 1};
    all[l] = end == begin ? l : sources[static_cast<std::size_t>(begin)];
  }
  return detail::checked({all, static_cast<std::size_t>(layers)}, classes);
}

}  // namespace forms

STRATA_NAMESPACE_END
