// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The scales that a storage was given for head-scaled codecs.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

#include <strata/cache/codec.hpp>
#include <strata/cache/storage.hpp>
#include <strata/config.hpp>
#include <strata/detail/array.hpp>
#include <strata/detail/math.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>
#include <strata/tensor.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Those of one side, K or V.
class head_scale_table {
 public:
  /// Copies scales of `Codec`, [num_layers, most KV heads of a layer], or none. They are called
  /// `which` where one is refused.
  template <kv_codec Codec>
  status prepare(kv_classes const& classes, std::span<float const> given, tensor which) noexcept {
    if (given.empty()) return {};
    if constexpr (head_scaled_codec<Codec>) heads_ = most_heads(classes);
    auto const count = std::int64_t{classes.num_layers()} * heads_;
    auto const size = static_cast<std::int64_t>(given.size());
    if (size != count) return {errc::head_scales_mismatch, no_layer, size, count};
    if (auto const s = scales_.grow(count); !s.ok()) return s;
    for (std::int64_t i = 0; i < count; ++i) scales_[i] = given[static_cast<std::size_t>(i)];
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
      for (std::int32_t h = 0; classes[l].has_kv && h < classes[l].kv.kv_heads; ++h)
        if (auto const scale = of(l)[h]; !usable(scale))
          return {errc::bad_head_scale, l, static_cast<std::int64_t>(which), h};
    return {};
  }

  /// [kv_heads]; null where none were given: all are 1.
  float const* of(layer_id layer) const noexcept {
    return scales_.size() == 0 ? nullptr : scales_.data() + std::int64_t{layer.index} * heads_;
  }
  std::span<float const> all() const noexcept { return scales_.first(scales_.size()); }

 private:
  static bool usable(float scale) noexcept {
    return scale > 0 && scale <= (std::numeric_limits<float>::max)();
  }
  static std::int32_t most_heads(kv_classes const& classes) noexcept {
    std::int32_t most = 0;
    for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
      if (classes[l].has_kv) most = larger(most, classes[l].kv.kv_heads);
    return most;
  }

  array<float> scales_;     // [num_layers, heads_]
  std::int32_t heads_ = 0;  // 0 of codecs that take no such scales
};

struct head_scale_tables {
  head_scale_table k, v;

  template <kv_codec KCodec, kv_codec VCodec>
  status prepare(kv_classes const& classes, head_scales const& given) noexcept {
    if (auto const s = k.prepare<KCodec>(classes, given.k, tensor::k_head_scales); !s.ok())
      return s;
    return v.prepare<VCodec>(classes, given.v, tensor::v_head_scales);
  }
};

}  // namespace detail

STRATA_NAMESPACE_END
