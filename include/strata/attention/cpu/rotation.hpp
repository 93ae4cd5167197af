// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Rotated codecs of K, read as they lie: what is rotated instead is the query, once. The sums are
// those of hadamard_rotate, in its order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <strata/attention/cpu/lanes.hpp>
#include <strata/cache/rotated_codec.hpp>
#include <strata/config.hpp>

STRATA_NAMESPACE_BEGIN

namespace cpu {
inline namespace STRATA_CPU_ISA {
namespace detail {

using strata::detail::stored_as;

/// Lanes i and i + step as their sum and their difference, for all steps below a vector's lanes.
template <class T, std::size_t... Lane>
[[gnu::always_inline]] inline typename lanes<T>::vec rotate_lanes(
    typename lanes<T>::vec x, std::index_sequence<Lane...>) noexcept {
  using vec = typename lanes<T>::vec;
  auto const join = [&](auto step) __attribute__((always_inline)) {
    constexpr std::size_t s = step();
    vec const sign = {((Lane & s) == 0 ? T{1} : T{-1})...};
    x = __builtin_shufflevector(x, x, (Lane ^ s)...) + x * sign;
  };
  join(std::integral_constant<std::size_t, 1>());
  if constexpr (sizeof...(Lane) > 2) join(std::integral_constant<std::size_t, 2>());
  if constexpr (sizeof...(Lane) > 4) join(std::integral_constant<std::size_t, 4>());
  if constexpr (sizeof...(Lane) > 8) join(std::integral_constant<std::size_t, 8>());
  return x;
}

/// Of `length` vectors, a power of two, `stride` elements apart, those i and i + step as their sum
/// and their difference, for all steps.
template <class T>
void rotate_vectors(T* x, std::int64_t stride, std::int32_t length) noexcept {
  using v = lanes<T>;
  for (std::int32_t step = 1; step < length; step *= 2)
    for (std::int32_t begin = 0; begin < length; begin += 2 * step)
      for (auto i = begin; i < begin + step; ++i) {
        T* const at = x + i * stride;
        auto const a = v::load(at), b = v::load(at + step * stride);
        v::store(at, a + b);
        v::store(at + step * stride, a - b);
      }
}

/// hadamard_rotate of a row of n elements.
template <class T>
void rotate_row(T* x, std::int32_t n) noexcept {
  using v = lanes<T>;
  using strata::detail::hadamard_block;
  constexpr auto all = std::make_index_sequence<static_cast<std::size_t>(v::count)>();
  for (hadamard_block<T> block(n); block.length >= v::count; block = hadamard_block<T>(n)) {
    for (std::int32_t i = 0; i < block.length; i += v::count)
      v::store(x + i, rotate_lanes<T>(v::load(x + i), all));
    rotate_vectors(x, v::count, block.length / v::count);
    for (std::int32_t i = 0; i < block.length; i += v::count)
      v::store(x + i, v::load(x + i) * block.factor);
    x += block.length;
    n -= block.length;
  }
  hadamard_rotate(x, n);
}

/// The same of columns, x[n][stride], of which there are whole vectors.
template <class T>
void rotate_columns(T* x, std::int64_t stride, std::int32_t n, std::int32_t columns) noexcept {
  using v = lanes<T>;
  while (n > 0) {
    strata::detail::hadamard_block<T> const block(n);
    for (std::int32_t j = 0; j < columns; j += v::count) {
      rotate_vectors(x + j, stride, block.length);
      for (std::int32_t i = 0; i < block.length; ++i)
        v::store(x + i * stride + j, v::load(x + i * stride + j) * block.factor);
    }
    x += block.length * stride;
    n -= block.length;
  }
}

}  // namespace detail
}  // namespace STRATA_CPU_ISA
}  // namespace cpu

STRATA_NAMESPACE_END
