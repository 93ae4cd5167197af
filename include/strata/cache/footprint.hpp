// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// What a plan costs in memory before anything is allocated: the K and V themselves. A storage may
// round up: to whole blocks, and in a model of several layer kinds to blocks of the largest kind. A
// scale that the rows of a KV head share is no row's: 4 bytes for each head and block, not counted.
#pragma once

#include <cstdint>

#include <strata/cache/codec.hpp>
#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/plan.hpp>

STRATA_NAMESPACE_BEGIN

namespace detail {

/// Bytes of one head of one token, and of scales that are its own.
template <kv_codec Codec>
constexpr std::int64_t head_bytes(std::int32_t dim) noexcept {
  return Codec::row_bytes(dim) + (head_scaled_codec<Codec> ? 0 : Codec::scale_bytes(dim));
}

}  // namespace detail

/// Bytes of K (or V) that one layer keeps per token.
template <kv_codec KCodec>
constexpr std::int64_t k_bytes(kv_class const& kv) noexcept {
  return kv.kv_heads * detail::head_bytes<KCodec>(kv.k_dim);
}
template <kv_codec VCodec>
constexpr std::int64_t v_bytes(kv_class const& kv) noexcept {
  return kv.kv_heads * detail::head_bytes<VCodec>(kv.v_dim);
}

/// Bytes of K and V that a sequence with this plan keeps per token, the rows' own scales included.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
constexpr std::int64_t bytes_per_token(route_plan const& plan, kv_classes const& classes) noexcept {
  std::int64_t bytes = 0;
  for (layer_id l{0}; plan.num_layers > l.index; ++l.index) {
    if (plan[l].k.stored) bytes += k_bytes<KCodec>(classes[l].kv);
    if (plan[l].v.stored) bytes += v_bytes<VCodec>(classes[l].kv);
  }
  return bytes;
}

/// Bytes per token if every layer with K/V kept its own; 0 for a model that no plan can hold.
template <kv_codec KCodec, kv_codec VCodec = KCodec>
constexpr std::int64_t identity_bytes_per_token(kv_classes const& classes) noexcept {
  if (!classes.check().ok()) return 0;
  std::int64_t bytes = 0;
  for (layer_id l{0}; classes.num_layers() > l.index; ++l.index)
    if (classes[l].has_kv) bytes += k_bytes<KCodec>(classes[l].kv) + v_bytes<VCodec>(classes[l].kv);
  return bytes;
}

/// The true retention: bytes per token over those of the identity plan. 30 layers every:4 keep 8 of
/// 30, which is 0.267 and not 0.25.
template <kv_codec KCodec = bf16_codec, kv_codec VCodec = KCodec>
constexpr double retention(route_plan const& plan, kv_classes const& classes) noexcept {
  auto const all = identity_bytes_per_token<KCodec, VCodec>(classes);
  if (all == 0) return 0;
  return static_cast<double>(bytes_per_token<KCodec, VCodec>(plan, classes)) /
         static_cast<double>(all);
}

STRATA_NAMESPACE_END
