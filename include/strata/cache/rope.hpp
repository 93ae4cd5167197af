// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// RoPE by tables, so that a row of K can be rotated on its way into the cache: `kv_run` does it
// between reading a projected row and encoding it, and nothing passes over the rows in between.
#pragma once

#include <concepts>
#include <cstdint>

#include <strata/config.hpp>
#include <strata/geometry.hpp>
#include <strata/status.hpp>

STRATA_NAMESPACE_BEGIN

/// Cosines and sines that are the caller's, because how a model scales its frequencies is the
/// model's business and every engine has these tables. Plain data; T: float or double. Threads:
/// any number, at the same time.
///
/// Pair j of a head, of the leading `dims` elements, is turned by the angle of table row `position`,
/// column j: (a, b) -> (a cos - b sin, b cos + a sin). Pairs are (j, j + dims / 2), as in GPT-NeoX
/// and Hugging Face's Llama; interleaved (2j, 2j + 1), as in GPT-J and Meta's Llama.
template <std::floating_point T>
struct rotary {
  /// Most elements of a head that is rotated while it is stored: it passes through the stack.
  static constexpr std::int32_t max_dim = 1024;

  T const* cos = nullptr;  ///< [positions, dims / 2]
  T const* sin = nullptr;  ///< the same
  std::int64_t stride =
      0;  ///< elements from one position to the next: vLLM keeps both in one table
  std::int32_t positions = 0;
  std::int32_t dims = 0;
  bool interleaved = false;

  /// Tables that follow each other without gaps.
  static constexpr rotary of(T const* cos, T const* sin, std::int32_t positions, std::int32_t dims,
                             bool interleaved = false) noexcept {
    return {cos, sin, dims / 2, positions, dims, interleaved};
  }

  /// Refuses tables that are none, and a rotation that is not the one of these layers' keys.
  constexpr status check(kv_class const& kv) const noexcept {
    if (auto const s = check_tables(kv.k_dim); !s.ok()) return s;
    auto const expected = kv.rope.dims < 0 ? kv.k_dim : kv.rope.dims;
    if (!rotates(kv.k_dim) || dims != expected)
      return {errc::rope_dims_mismatch, no_layer, dims, expected};
    if (kv.rope.theta == 0) return {errc::rope_not_wanted};
    if (interleaved != kv.rope.interleaved)
      return {errc::rope_pairs_mismatch, no_layer, interleaved, kv.rope.interleaved};
    return {};
  }

  /// Refuses tables that are none, and those that do not turn heads of `dim` elements.
  constexpr status check_shape(std::int32_t dim) const noexcept {
    if (auto const s = check_tables(dim); !s.ok()) return s;
    if (!rotates(dim)) return {errc::rope_dims_mismatch, no_layer, dims, dim};
    return {};
  }

  /// Whether a head of `dim` elements at this position can be rotated.
  STRATA_HOST_DEVICE constexpr bool covers(std::int32_t dim, std::int32_t position) const noexcept {
    return rotates(dim) && dim <= max_dim && position >= 0 && position < positions;
  }

  /// out = the head of `dim` elements turned; the two do not overlap. The only body: rotated before
  /// it is stored or while it is, a row has the same bits. Meant to be inlined: kept out of line it
  /// costs 5 ns a head, more than the pass that storing rotated rows saves.
  STRATA_HOST_DEVICE void rotate(T const* head, T* out, std::int32_t dim,
                                 std::int32_t position) const noexcept {
    T const* STRATA_RESTRICT const c = cos + position * stride;
    T const* STRATA_RESTRICT const s = sin + position * stride;
    T const* STRATA_RESTRICT const from = head;
    auto const pairs = dims / 2;
    if (interleaved) {
      T* STRATA_RESTRICT const to = out;
      for (std::int32_t j = 0; j < pairs; ++j) {
        T const a = from[2 * j], b = from[2 * j + 1];
        to[2 * j] = a * c[j] - b * s[j];
        to[2 * j + 1] = b * c[j] + a * s[j];
      }
    } else {
      T* STRATA_RESTRICT const low = out;
      T* STRATA_RESTRICT const high = out + pairs;
      for (std::int32_t j = 0; j < pairs; ++j) {
        T const a = from[j], b = from[j + pairs];
        low[j] = a * c[j] - b * s[j];
        high[j] = b * c[j] + a * s[j];
      }
    }
    for (auto j = dims; j < dim; ++j) out[j] = from[j];
  }

  /// The same in place. dims is at most max_dim.
  STRATA_HOST_DEVICE void rotate(T* head, std::int32_t position) const noexcept {
    T copy[max_dim];
    for (std::int32_t j = 0; j < dims; ++j) copy[j] = head[j];
    rotate(copy, head, dims, position);
  }

 private:
  constexpr status check_tables(std::int32_t dim) const noexcept {
    if (cos == nullptr) return null_pointer(tensor::rope_cos);
    if (sin == nullptr) return null_pointer(tensor::rope_sin);
    if (positions < 1) return {errc::rope_too_short, no_layer, 0, positions};
    if (stride < dims / 2) return {errc::rope_stride_too_small, no_layer, stride, dims / 2};
    if (dim > max_dim) return {errc::rope_head_too_large, no_layer, dim, max_dim};
    return {};
  }

  STRATA_HOST_DEVICE constexpr bool rotates(std::int32_t dim) const noexcept {
    return dims >= 2 && dims % 2 == 0 && dims <= dim;
  }
};

STRATA_NAMESPACE_END
