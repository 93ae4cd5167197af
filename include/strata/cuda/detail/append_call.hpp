// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/attention/query.hpp>
#include <strata/cache/rope.hpp>
#include <strata/config.hpp>
#include <strata/cuda/detail/append_body.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

namespace cuda::detail {

template <class T>
status check(append_side<T> const& side, tensor which) noexcept {
  if (side.num_rows < 0) return {errc::value_too_small, no_layer, side.num_rows, 0};
  if (side.num_rows == 0) return {};
  if (side.heads == nullptr || side.to.blocks.data == nullptr) return null_pointer(which);
  if (side.to.rows == nullptr || side.to.sequence == nullptr || side.to.token == nullptr)
    return null_pointer(tensor::row_table);
  if (side.to.kv_heads < 1 || side.to.dim < 1)
    return {errc::bad_view_heads, no_layer, smaller(side.to.kv_heads, side.to.dim), 1};
  if (side.to.dim > rotary<float>::max_dim)
    return {errc::head_too_large, no_layer, side.to.dim, rotary<float>::max_dim};
  if (auto const dense = std::int64_t{side.to.kv_heads} * side.to.dim;
      side.row_stride != 0 && side.row_stride < dense)
    return {errc::value_too_small, no_layer, side.row_stride, dense};
  return {};
}

/// Blocks are as many as there is work, up to what fills a large device several times.
inline constexpr std::int64_t most_append_blocks = 4096;

template <class KCodec, class VCodec, class Launcher, query_element T>
status append_on(Launcher const& launcher, append_side<T> const& k, append_side<T> const& v,
                 rotary<float> const& rope) noexcept {
  static_assert(!std::same_as<T, double>, "strata: rows of K and V on a device are float at most");
  if (auto const s = check(k, tensor::k); !s.ok()) return s;
  if (auto const s = check(v, tensor::v); !s.ok()) return s;
  if (rope.cos != nullptr && k.num_rows > 0)
    if (auto const s = rope.check_shape(k.to.dim); !s.ok()) return s;
  append_args<T, KCodec, VCodec> const args{k, v, rope};
  auto const heads =
      std::int64_t{k.num_rows} * k.to.kv_heads + std::int64_t{v.num_rows} * v.to.kv_heads;
  auto const blocks = smaller(ceil_divide<std::int64_t>(heads, append_warps), most_append_blocks);
  auto const shared =
      append_warps * larger(k.to.dim, v.to.dim) * static_cast<std::int32_t>(sizeof(float));
  return launcher.template start<append_kernel>(blocks, shared, args);
}

}  // namespace cuda::detail

STRATA_NAMESPACE_END
