// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The routing sampler: while training, whose K/V does each layer read in this pass?
#pragma once

#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>

#include <strata/config.hpp>
#include <strata/detail/policy.hpp>
#include <strata/geometry.hpp>
#include <strata/ids.hpp>
#include <strata/random.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// The layers that one layer may read in training: those of its KV class and pipeline stage up to
/// and including itself, in ascending order. Never empty.
class candidates {
 public:
  constexpr explicit candidates(std::span<layer_id const> layers) noexcept : layers_(layers) {
    STRATA_ASSERT(!layers.empty());
  }

  constexpr layer_id reader() const noexcept { return layers_.back(); }
  constexpr std::int32_t size() const noexcept { return static_cast<std::int32_t>(layers_.size()); }
  /// The number of candidates before the reader.
  constexpr std::int32_t preceding() const noexcept { return size() - 1; }
  constexpr layer_id operator[](std::int32_t i) const noexcept {
    return layers_[static_cast<std::size_t>(i)];
  }
  constexpr layer_id first() const noexcept { return layers_.front(); }
  constexpr bool contains(layer_id layer) const noexcept {
    for (auto const candidate : layers_)
      if (candidate == layer) return true;
    return false;
  }

 private:
  std::span<layer_id const> layers_;
};

/// A sampler is a pure function from candidates and a key to one of the candidates. All its
/// randomness comes from `draw_words(key, layer)`. Write one like this:
///
///     struct previous_layer {
///       constexpr strata::layer_id operator()(strata::candidates c,
///                                             strata::draw_key) const noexcept {
///         return c[c.preceding() > 0 ? c.preceding() - 1 : 0];
///       }
///     };
///
/// A sampler with parameters that can be wrong may add `status check() const noexcept`, or
/// `status check(kv_classes const&) const noexcept` where the model decides.
template <class S>
concept routing_sampler =
    std::is_trivially_copyable_v<S> && requires(S const s, candidates c, draw_key k) {
      { s(c, k) } noexcept -> std::same_as<layer_id>;
    };

namespace detail {

/// The candidates of one layer, gathered from the classes of a model.
class candidate_list {
 public:
  constexpr candidate_list(kv_classes const& classes, layer_id reader) noexcept {
    for (layer_id layer{0}; layer <= reader; ++layer.index)
      if (layer == reader || classes.readable(reader, layer, use::training).ok())
        layers_[count_++] = layer;
  }
  constexpr candidates get() const noexcept {
    return candidates{std::span(layers_, static_cast<std::size_t>(count_))};
  }

 private:
  layer_id layers_[max_layers] = {};
  std::int32_t count_ = 0;
};

/// The words of the reader's own draw.
constexpr philox_block words_of(candidates c, draw_key const& key) noexcept {
  return draw_words(key, c.reader());
}

}  // namespace detail

STRATA_NAMESPACE_END
